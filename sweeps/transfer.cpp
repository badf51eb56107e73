#include "sweeps/transfer.h"
