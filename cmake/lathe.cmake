# Lathe's build vocabulary. Each src/ folder is one library; its USES line is its row of the architecture
# diagram, and tests/layering.sh fails on an #include that the line does not allow.

option(LATHE_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(LATHE_SANITIZE "" CACHE STRING "Sanitizers: e.g. address,undefined or thread")

add_library(lathe_flags INTERFACE)
target_compile_features(lathe_flags INTERFACE cxx_std_20)
target_include_directories(lathe_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
# -ffp-contract=off: reference arithmetic means the same on every compiler and ISA; kernels say fma where they want it.
target_compile_options(lathe_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # false positives of GCC 12 on std::string operator+ (GCC bug 105651)
                       -Werror -ffp-contract=off -fno-math-errno)
if(LATHE_SANITIZE)
  target_compile_options(lathe_flags INTERFACE -fsanitize=${LATHE_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all
                         $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # GCC 12 sees some in its own <regex> then
  target_link_options(lathe_flags INTERFACE -fsanitize=${LATHE_SANITIZE})
  if(LATHE_SANITIZE STREQUAL "thread")  # it knows no fences; Asio's mutexes order what they would
    target_compile_definitions(lathe_flags INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()
if(LATHE_FUZZ)
  target_compile_options(lathe_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Code whose speed nobody waits for: -O1 takes 40 % less of the compiler's time than -O3, and tests are a third of
# a build. (In an emulator it is their own time that counts.)
function(lathe_build_fast target)
  if(NOT CMAKE_CROSSCOMPILING)
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
endfunction()

# Several sources as one: of a file's compile time, three fifths go to headers that its neighbours read as well. A
# name in an anonymous namespace is then its batch's, so ALONE lists the sources that share one with a neighbour.
# For whole builds: after an edit the file alone is quicker (the `dev` preset).
option(LATHE_UNITY "Compile sources in batches" OFF)
function(lathe_in_batches target)
  cmake_parse_arguments(ARG "" "" "ALONE" ${ARGN})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${LATHE_UNITY} UNITY_BUILD_BATCH_SIZE 8)
  set_source_files_properties(${ARG_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  if(LATHE_UNITY)  # an Impl of anonymous types is, in a batch, no longer of the main file
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()

# lathe_library(name SOURCES a.cpp ... [ALONE those of them not to batch ...] USES lower layers ...
#               [LINKS third-party libraries ...])
function(lathe_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ALONE;USES;LINKS" ${ARGN})
  add_library(lathe_${name} STATIC ${ARG_SOURCES})
  lathe_in_batches(lathe_${name} ALONE ${ARG_ALONE})
  target_link_libraries(lathe_${name} PUBLIC lathe_flags)
  foreach(used ${ARG_USES})
    target_link_libraries(lathe_${name} PUBLIC lathe_${used})
  endforeach()
  target_link_libraries(lathe_${name} PUBLIC ${ARG_LINKS})
endfunction()

# lathe_embed(library FILES a.html ...): the files as rows {"name", "text"} of <library>_files.inc, which a source
# of the library includes in a table.
function(lathe_embed library)
  cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
  set(rows "")
  foreach(file ${ARG_FILES})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(READ ${file} text)
    string(APPEND rows "{\"${file}\", R\"embedded(${text})embedded\"},\n")
  endforeach()
  set(LATHE_ROWS "${rows}")
  configure_file(${PROJECT_SOURCE_DIR}/cmake/embedded.inc.in ${CMAKE_CURRENT_BINARY_DIR}/${library}_files.inc @ONLY)
  target_include_directories(lathe_${library} PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
endfunction()

# lathe_isa_kernels(library isa [CPU flag] FLAGS -mavx2 ... SOURCES ...): files compiled for one ISA, joined to
# `library`. They include argument structs and intrinsics only, so no inline function built for a newer CPU can leak
# out. CPU: the word of /proc/cpuinfo that says that a machine runs them.
function(lathe_isa_kernels library isa)
  cmake_parse_arguments(ARG "" "CPU" "FLAGS;SOURCES" ${ARGN})
  add_library(lathe_${library}_${isa} OBJECT ${ARG_SOURCES})
  target_link_libraries(lathe_${library}_${isa} PRIVATE lathe_flags)
  target_compile_options(lathe_${library}_${isa} PRIVATE ${ARG_FLAGS})
  set(runs_here TRUE)
  if(ARG_CPU AND EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo runs_here REGEX "[ \t]${ARG_CPU}( |$)" LIMIT_COUNT 1)
  endif()
  # Options of sources come last, behind -fsanitize.
  if(LATHE_FUZZ)  # they parse nothing, and one file takes minutes so; `make asan` has them
    set_property(SOURCE ${ARG_SOURCES} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=all)
  elseif(LATHE_SANITIZE AND NOT runs_here)  # minutes for checks that no test here would come to
    set_property(SOURCE ${ARG_SOURCES} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=all -O1 -g0)
  elseif(LATHE_SANITIZE)  # Reports want lines. Where variables live took GCC longer than the code: 157 s, 62 with -g1.
    target_compile_options(lathe_${library}_${isa} PRIVATE -g1)
  endif()
  target_sources(lathe_${library} PRIVATE $<TARGET_OBJECTS:lathe_${library}_${isa}>)
endfunction()

# lathe_test(folder [UNOPTIMIZED] SOURCES ... [ALONE ...] USES layers ...): one test binary per folder, each TEST a CTest
# entry. UNOPTIMIZED: its own code takes no time, so -O0, which compiles in two thirds of -O1's.
function(lathe_test folder)
  cmake_parse_arguments(ARG "UNOPTIMIZED" "" "SOURCES;ALONE;USES;LINKS" ${ARGN})
  set(target test_${folder})
  add_executable(${target} ${ARG_SOURCES})
  lathe_in_batches(${target} ALONE ${ARG_ALONE})
  foreach(used ${ARG_USES})
    target_link_libraries(${target} PRIVATE lathe_${used})
  endforeach()
  target_link_libraries(${target} PRIVATE ${ARG_LINKS} GTest::gmock_main)
  lathe_build_fast(${target})
  if(ARG_UNOPTIMIZED)
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O0>)
  endif()
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${target} PRIVATE LATHE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set(timeout 300)
  if(CMAKE_CROSSCOMPILING)  # an emulator takes minutes for the longest of them
    set(timeout 1200)
  endif()
  gtest_discover_tests(${target} TEST_PREFIX ${folder}. DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT ${timeout})
endfunction()

# lathe_fuzz(name USES layers ...): fuzz/<name>.cpp, a libFuzzer target over fuzz/corpus/<name>. In builds without
# libFuzzer it replays the corpus, as the CTest entry fuzz.<name>: a target that no longer compiles is noticed.
function(lathe_fuzz name)
  cmake_parse_arguments(ARG "" "" "USES" ${ARGN})
  add_executable(fuzz_${name} ${name}.cpp)
  foreach(used ${ARG_USES})
    target_link_libraries(fuzz_${name} PRIVATE lathe_${used})
  endforeach()
  target_link_libraries(fuzz_${name} PRIVATE lathe_flags)
  lathe_build_fast(fuzz_${name})
  if(LATHE_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_link_libraries(fuzz_${name} PRIVATE fuzz_replay)
    add_test(NAME fuzz.${name} COMMAND fuzz_${name} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  endif()
endfunction()
