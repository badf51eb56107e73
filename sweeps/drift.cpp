#include "sweeps/drift.h"
