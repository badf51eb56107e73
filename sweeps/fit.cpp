#include "sweeps/fit.h"
