#include "sweeps/analysis.h"
