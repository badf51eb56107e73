#include "sweeps/study_file.h"
