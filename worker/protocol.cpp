#include "worker/protocol.h"
