#include "tests/source_dir.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace tenon {

std::string SourcePath(absl::string_view relative) {
  const char* const moved = std::getenv("TENON_SOURCE_DIR");
  return absl::StrCat(moved == nullptr ? TENON_SOURCE_DIR : moved, "/", relative);
}

}  // namespace tenon
