// Writers of safetensors files for tests: well-formed ones from tensors, any from a header's text.
#ifndef TENON_TESTS_ADAPTERS_FORMATS_SAFETENSORS_BUILDER_H_
#define TENON_TESTS_ADAPTERS_FORMATS_SAFETENSORS_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/file_set.h"

namespace tenon::testing {

/// `value` as the 8 bytes in front of a safetensors header.
inline std::string LittleEndian64(uint64_t value) {
  std::string bytes(8, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(value & 0xFF);
    value >>= 8;
  }
  return bytes;
}

/// A file with this header text and data, whatever they say.
inline std::string RawSafetensors(absl::string_view header, absl::string_view data = "") {
  return absl::StrCat(LittleEndian64(header.size()), header, data);
}

/// Bytes of fp32 values.
inline std::string Floats(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// Collects tensors into a well-formed file.
///
///   std::string file = SafetensorsBuilder().Add("x", "F32", {2}, Floats({1, 2})).Build();
class SafetensorsBuilder {
 public:
  SafetensorsBuilder& Add(absl::string_view name, absl::string_view dtype,
                          const std::vector<int64_t>& shape, absl::string_view data) {
    entries_.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[",
                                    absl::StrJoin(shape, ","), "],\"data_offsets\":[", data_.size(),
                                    ",", data_.size() + data.size(), "]}"));
    data_.append(data.data(), data.size());
    return *this;
  }

  /// Adds an fp32 tensor whose elements all are `value`.
  SafetensorsBuilder& AddFilled(absl::string_view name, const std::vector<int64_t>& shape,
                                float value) {
    int64_t count = 1;
    for (int64_t dim : shape) {
      count *= dim;
    }
    return Add(name, "F32", shape, Floats(std::vector<float>(count, value)));
  }

  std::string header() const {
    return absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"}", entries_.empty() ? "" : ",",
                        absl::StrJoin(entries_, ","), "}");
  }
  const std::string& data() const { return data_; }
  std::string Build() const { return RawSafetensors(header(), data_); }

 private:
  std::vector<std::string> entries_;
  std::string data_;
};

/// A FileSet over strings that it owns.
inline FileSet MakeFileSet(std::vector<std::pair<std::string, std::string>> files) {
  FileSet set;
  for (auto& [name, content] : files) {
    auto owner = std::make_shared<const std::string>(std::move(content));
    const std::span<const char> chars(owner->data(), owner->size());
    set[name] = FileBytes{std::as_bytes(chars), owner};
  }
  return set;
}

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_FORMATS_SAFETENSORS_BUILDER_H_
