# libfeatinv-torch.so over the libtorch of a `torch` wheel, and its CUDA plug-in.

if(NOT FEATINV_TORCH)
  execute_process(
    COMMAND ${FEATINV_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE FEATINV_TORCH OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "no torch in ${FEATINV_PYTHON}: run scripts/setup.sh, or give -DFEATINV_TORCH=.../site-packages/torch, or -DFEATINV_BACKEND=OFF")
  endif()
endif()
file(STRINGS ${FEATINV_TORCH}/version.py version_line REGEX "^__version__ = ")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" FEATINV_TORCH_VERSION "${version_line}")
message(STATUS "libtorch ${FEATINV_TORCH_VERSION} in ${FEATINV_TORCH}")
file(WRITE ${CMAKE_BINARY_DIR}/libfeatinv-torch.conf
     "# Which libtorch libfeatinv-torch.so was built for, and where it is.\n"
     "torch_version=${FEATINV_TORCH_VERSION}\n"
     "torch_lib=${FEATINV_TORCH}/lib\n")

add_library(torch_headers INTERFACE)
target_include_directories(torch_headers SYSTEM INTERFACE
  ${FEATINV_TORCH}/include ${FEATINV_TORCH}/include/torch/csrc/api/include)
target_compile_definitions(torch_headers INTERFACE
  FI_TORCH_VERSION="${FEATINV_TORCH_VERSION}")

set(torch_link_folders ${FEATINV_TORCH}/lib ${FEATINV_TORCH}/../nvidia/cu13/lib)
list(JOIN torch_link_folders ":" torch_rpath_link)

file(GLOB shim_sources CONFIGURE_DEPENDS shim/*.cpp)
add_library(featinv_torch SHARED ${shim_sources})
# only $ORIGIN: the core opens libtorch by its path before it opens this file
set_target_properties(featinv_torch PROPERTIES OUTPUT_NAME featinv-torch INSTALL_RPATH "$ORIGIN")
target_include_directories(featinv_torch PRIVATE shim include)
target_compile_options(featinv_torch PRIVATE -O2 -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow
                       -Wconversion $<$<BOOL:${FEATINV_WERROR}>:-Werror>)
if(FEATINV_SANITIZE) # libtorch hides the type information that -fsanitize=vptr asks for
  target_compile_options(featinv_torch PRIVATE -fno-sanitize=vptr)
endif()
target_precompile_headers(featinv_torch PRIVATE <ATen/ATen.h> <torch/csrc/jit/api/module.h>
                          <torch/csrc/jit/runtime/interpreter.h> <torch/csrc/jit/ir/ir.h>)
# never libtorch.so, which needs libtorch_cuda.so
target_link_libraries(featinv_torch PRIVATE torch_headers ${FEATINV_TORCH}/lib/libtorch_cpu.so
                      ${FEATINV_TORCH}/lib/libc10.so ${CMAKE_DL_LIBS})
target_link_options(featinv_torch PRIVATE -Wl,-z,defs -Wl,--as-needed
                    -Wl,-rpath-link,${torch_rpath_link}
                    -Wl,--version-script=${CMAKE_SOURCE_DIR}/shim/backend.map)

# ---- the CUDA plug-in, where nvcc is found: it loads on a machine without a GPU, too ------------
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_ARCHITECTURES ${FEATINV_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  add_library(featinv_cuda SHARED shim/cuda.cu)
  set_target_properties(featinv_cuda PROPERTIES OUTPUT_NAME featinv-cuda INSTALL_RPATH "$ORIGIN"
                        CUDA_RUNTIME_LIBRARY None CUDA_VISIBILITY_PRESET hidden)
  target_include_directories(featinv_cuda PRIVATE shim include)
  # the wheel's own runtime and headers: the toolkit's would put two CUDA runtimes into one process
  set(cuda_wheel ${FEATINV_TORCH}/../nvidia/cu13)
  target_include_directories(featinv_cuda SYSTEM BEFORE PRIVATE ${cuda_wheel}/include)
  target_link_libraries(featinv_cuda PRIVATE torch_headers ${FEATINV_TORCH}/lib/libtorch_cuda.so
                        ${FEATINV_TORCH}/lib/libc10_cuda.so ${FEATINV_TORCH}/lib/libc10.so
                        ${cuda_wheel}/lib/libcudart.so.13)
  target_link_options(featinv_cuda PRIVATE -Wl,--as-needed -Wl,-rpath-link,${torch_rpath_link}
                      -Wl,--version-script=${CMAKE_SOURCE_DIR}/shim/cuda.map)
else()
  message(STATUS "no nvcc: the CUDA plug-in is left out")
endif()
