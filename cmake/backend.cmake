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

file(GLOB shim_sources CONFIGURE_DEPENDS shim/*.cpp)
list(FILTER shim_sources EXCLUDE REGEX "/cuda[^/]*$")
add_library(featinv_torch SHARED ${shim_sources})
set_target_properties(featinv_torch PROPERTIES OUTPUT_NAME featinv-torch)
target_link_libraries(featinv_torch PRIVATE torch_headers ${FEATINV_TORCH}/lib/libtorch_cpu.so
                      ${FEATINV_TORCH}/lib/libc10.so ${CMAKE_DL_LIBS})
target_compile_options(featinv_torch PRIVATE -Wall -Wextra $<$<BOOL:${FEATINV_WERROR}>:-Werror>)
target_link_options(featinv_torch PRIVATE -Wl,--as-needed
                    -Wl,--version-script=${CMAKE_SOURCE_DIR}/shim/backend.map)
# only $ORIGIN: the core opens libtorch by its path before it opens this file
set_target_properties(featinv_torch PROPERTIES INSTALL_RPATH "$ORIGIN")
