# Imported targets for LibTorch from a torch package (the PyPI wheel): `tuneonce_torch`.
# The package's own TorchConfig.cmake insists on a CUDA architecture at configure time, also where nothing of
# CUDA is linked; a program on torch_cpu and c10 needs no driver.

set(root "${TORCH_ROOT}")
if(NOT root)
  set(root "${CMAKE_SOURCE_DIR}/.deps/python/torch")
endif()
if(NOT EXISTS "${root}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found: ${root}/lib/libtorch_cpu.so. Run ./setup.sh, or give "
    "-DTORCH_ROOT=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')")
endif()
if(EXISTS "${root}/version.py")
  file(STRINGS "${root}/version.py" line REGEX "^__version__ = ")
  string(REGEX REPLACE ".*'([^']+)'.*" "\\1" torch_version "${line}")
endif()

# CUDA is linked where a driver is; elsewhere the CPU part alone.
find_library(TUNEONCE_CUDA_DRIVER NAMES libcuda.so.1 PATHS /usr/local/nvidia/lib64 /usr/lib/wsl/lib)
if(TUNEONCE_CUDA_DRIVER AND EXISTS "${root}/lib/libtorch_cuda.so")
  set(cuda_default ON)
else()
  set(cuda_default OFF)
endif()
option(TUNEONCE_CUDA "Link LibTorch's CUDA part (needs its libraries: the full torch package)" ${cuda_default})

add_library(tuneonce_torch INTERFACE)
target_include_directories(tuneonce_torch SYSTEM INTERFACE
  "${root}/include" "${root}/include/torch/csrc/api/include")
target_link_libraries(tuneonce_torch INTERFACE
  "${root}/lib/libtorch_cpu.so" "${root}/lib/libc10.so" Threads::Threads)
# Our text formatting next to LibTorch's headers, which bring their own fmt: header-only, so nothing clashes.
target_compile_definitions(tuneonce_torch INTERFACE FMT_HEADER_ONLY=1 TUNEONCE_TORCH_VERSION="${torch_version}")
# libtorch finds its own CUDA runtime through an RPATH of its own; ours must pass it on to what it loads.
target_link_options(tuneonce_torch INTERFACE
  "-Wl,-rpath,${root}/lib" "-Wl,--disable-new-dtags" "-Wl,--allow-shlib-undefined")
if(TUNEONCE_CUDA)
  target_link_options(tuneonce_torch INTERFACE
    "-Wl,--no-as-needed,${root}/lib/libtorch_cuda.so,${root}/lib/libc10_cuda.so,--as-needed")
  target_compile_definitions(tuneonce_torch INTERFACE TUNEONCE_CUDA=1)
endif()
message(STATUS "LibTorch ${torch_version} in ${root}, CUDA ${TUNEONCE_CUDA}")
