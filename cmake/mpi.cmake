# libfeatinv-mpi.so, where MPI is found: ranks and sums of a training on several machines.
set(MPI_CXX_SKIP_MPICXX ON)
find_package(MPI QUIET COMPONENTS C)
if(MPI_C_FOUND)
  add_library(featinv_mpi SHARED shim/mpi.c)
  set_target_properties(featinv_mpi PROPERTIES OUTPUT_NAME featinv-mpi INSTALL_RPATH "$ORIGIN"
                        LINK_DEPENDS ${CMAKE_SOURCE_DIR}/shim/mpi.map)
  target_include_directories(featinv_mpi PRIVATE shim include)
  target_compile_options(featinv_mpi PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                         $<$<BOOL:${FEATINV_WERROR}>:-Werror>)
  target_link_libraries(featinv_mpi PRIVATE MPI::MPI_C)
  target_link_options(featinv_mpi PRIVATE -Wl,--as-needed
                      -Wl,--version-script=${CMAKE_SOURCE_DIR}/shim/mpi.map)
else()
  message(STATUS "no MPI (mpicc): libfeatinv-mpi.so, for training with several processes, is left out")
endif()
