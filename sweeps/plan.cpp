#include "sweeps/plan.h"
