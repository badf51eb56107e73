#pragma once
// Precompiled for models and worker: parsing ATen costs ten seconds a file without.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
