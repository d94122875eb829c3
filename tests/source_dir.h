// Where the tests' data files are.
#ifndef TENON_TESTS_SOURCE_DIR_H_
#define TENON_TESTS_SOURCE_DIR_H_

#include <string>

#include "absl/strings/string_view.h"

namespace tenon {

/// Absolute path of a file or folder of the source tree, given relative to its root, which
/// TENON_SOURCE_DIR names where the tree has moved since the build. One translation unit alone
/// knows the root, so that the objects of all others are the same in every checkout and a compiler
/// cache serves them all.
std::string SourcePath(absl::string_view relative);

}  // namespace tenon

#endif  // TENON_TESTS_SOURCE_DIR_H_
