# `cmake --install build --prefix P`: libraries, header, command, CMake package, featinv.pc, bundle.
include(CMakePackageConfigHelpers)

install(TARGETS featinv EXPORT featinv-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS featinv_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES include/featinv.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(FEATINV_BACKEND)
  install(TARGETS featinv_torch LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${CMAKE_BINARY_DIR}/libfeatinv-torch.conf DESTINATION ${CMAKE_INSTALL_LIBDIR})
  if(TARGET featinv_cuda)
    install(TARGETS featinv_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
endif()
if(TARGET featinv_mpi)
  install(TARGETS featinv_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY models/scenes DESTINATION ${CMAKE_INSTALL_DATADIR}/featinv/models)

install(EXPORT featinv-targets NAMESPACE featinv:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/featinv)
configure_package_config_file(cmake/featinv-config.cmake.in featinv-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/featinv)
write_basic_package_version_file(featinv-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/featinv-config.cmake
              ${CMAKE_BINARY_DIR}/featinv-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/featinv)

# ${pcfiledir} keeps the file true when the installed tree moves
file(RELATIVE_PATH FEATINV_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" FEATINV_PC_PREFIX "${FEATINV_PC_PREFIX}")
configure_file(pkgconfig/featinv.pc.in featinv.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/featinv.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
