#include "adapters/formats/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

constexpr int64_t kLengthBytes = 8;  // the header's length, unsigned little-endian
constexpr absl::string_view kMetadataKey = "__metadata__";
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxNameBytes = 1024;

struct DTypeInfo {
  absl::string_view name;
  int64_t size;
};

// In the order of DType.
constexpr DTypeInfo kDTypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                 {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};

std::optional<DType> FindDType(absl::string_view name) {
  for (size_t i = 0; i < std::size(kDTypes); ++i) {
    if (kDTypes[i].name == name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

// A tensor as its header entry describes it, before its bytes are looked up.
struct HeaderEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;  // begin and end, relative to the end of the header
};

// Receives the header's JSON events and accepts exactly the format's grammar:
//   {"__metadata__": {string: string}, name: {"dtype": s, "shape": [n...], "data_offsets": [n, n]}}
// Any event outside it ends the parse with an error, so nesting never goes deeper than three.
class HeaderReader {
 public:
  HeaderReader(absl::string_view file_name, const SafetensorsLimits& limits)
      : file_name_(file_name), limits_(limits) {}

  const absl::Status& status() const { return status_; }
  std::vector<HeaderEntry>& entries() { return entries_; }
  std::map<std::string, std::string>& metadata() { return metadata_; }

  // The SAX interface of nlohmann::json; false stops the parse.
  bool null() { return Unexpected("null"); }
  bool boolean(bool) { return Unexpected("a boolean"); }
  bool number_integer(int64_t value) { return Unexpected(absl::StrCat("the number ", value)); }
  bool number_float(double, const std::string& text) {
    return Unexpected(absl::StrCat("the number ", Quoted(text)));
  }
  bool binary(nlohmann::json::binary_t&) { return Unexpected("binary data"); }
  bool number_unsigned(uint64_t value);
  bool string(std::string& value);
  bool start_object(size_t);
  bool key(std::string& value);
  bool end_object();
  bool start_array(size_t);
  bool end_array() {
    place_ = Place::kTensor;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    return Fail(absl::StrCat("header is not valid JSON at byte ", position));
  }

 private:
  enum class Place { kOutside, kHeader, kMetadata, kTensor, kShape, kOffsets };
  enum Field : unsigned { kDType = 1, kShape = 2, kOffsets = 4, kAllFields = 7 };

  bool Fail(absl::string_view message) {
    status_ = InvalidAdapterError("MALFORMED_SAFETENSORS", file_name_,
                                  absl::StrCat(file_name_, ": ", message));
    return false;
  }
  bool Unexpected(absl::string_view what);
  bool BeginEntry(std::string& name);
  bool BeginField(absl::string_view name);

  const absl::string_view file_name_;
  const SafetensorsLimits limits_;
  absl::Status status_;
  Place place_ = Place::kOutside;
  bool has_metadata_ = false;
  std::string metadata_key_;
  Field field_ = kDType;
  unsigned seen_fields_ = 0;
  std::vector<HeaderEntry> entries_;  // the last one is being read
  std::map<std::string, std::string> metadata_;
};

bool HeaderReader::Unexpected(absl::string_view what) {
  switch (place_) {
    case Place::kOutside:
      return Fail(absl::StrCat("header is ", what, " instead of an object"));
    case Place::kHeader:
      return Fail(absl::StrCat("entry ",
                               Quoted(metadata_key_.empty() ? entries_.back().name : metadata_key_),
                               " is ", what, " instead of an object"));
    case Place::kMetadata:
      return Fail(absl::StrCat(kMetadataKey, " entry ", Quoted(metadata_key_), " is ", what,
                               " instead of a string"));
    default:
      return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name), " has ", what, " in its ",
                               field_ == kDType   ? "dtype"
                               : field_ == kShape ? "shape"
                                                  : "data_offsets"));
  }
}

bool HeaderReader::number_unsigned(uint64_t value) {
  HeaderEntry* entry = entries_.empty() ? nullptr : &entries_.back();
  if (place_ == Place::kShape && entry->shape.size() < kMaxDims &&
      value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    entry->shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  if (place_ == Place::kOffsets && entry->offsets.size() < 2) {
    entry->offsets.push_back(value);
    return true;
  }
  if (place_ == Place::kShape && entry->shape.size() == kMaxDims) {
    return Fail(
        absl::StrCat("tensor ", Quoted(entry->name), " has more than ", kMaxDims, " dimensions"));
  }
  return Unexpected(absl::StrCat("the number ", value));
}

bool HeaderReader::string(std::string& value) {
  if (place_ == Place::kMetadata) {
    metadata_[metadata_key_] = std::move(value);
    return true;
  }
  if (place_ != Place::kTensor || field_ != kDType) {
    return Unexpected(absl::StrCat("the string ", Quoted(value)));
  }
  const std::optional<DType> dtype = FindDType(value);
  if (!dtype.has_value()) {
    return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name), " has dtype ", Quoted(value),
                             ", which is not supported"));
  }
  entries_.back().dtype = *dtype;
  return true;
}

bool HeaderReader::start_object(size_t) {
  switch (place_) {
    case Place::kOutside:
      place_ = Place::kHeader;
      return true;
    case Place::kHeader:
      place_ = metadata_key_.empty() ? Place::kTensor : Place::kMetadata;
      return true;
    default:
      return Unexpected("an object");
  }
}

bool HeaderReader::start_array(size_t) {
  if (place_ != Place::kTensor || field_ == kDType) {
    return Unexpected("an array");
  }
  place_ = field_ == kShape ? Place::kShape : Place::kOffsets;
  return true;
}

bool HeaderReader::key(std::string& value) {
  switch (place_) {
    case Place::kHeader:
      return BeginEntry(value);
    case Place::kMetadata:
      metadata_key_ = value;
      return metadata_.emplace(value, "").second ||
             Fail(absl::StrCat(kMetadataKey, " key ", Quoted(value), " appears twice"));
    default:
      return BeginField(value);
  }
}

bool HeaderReader::BeginEntry(std::string& name) {
  if (name == kMetadataKey) {
    metadata_key_ = name;  // not empty: the next object is the metadata
    return !std::exchange(has_metadata_, true) || Fail("__metadata__ appears twice");
  }
  metadata_key_.clear();
  if (static_cast<int64_t>(entries_.size()) >= limits_.max_tensors) {
    return Fail(absl::StrCat("more than ", limits_.max_tensors,
                             " tensors, the limit (max_adapter_tensors)"));
  }
  if (name.empty() || name.size() > kMaxNameBytes) {
    return Fail(
        absl::StrCat("tensor name ", Quoted(name), " is not 1 to ", kMaxNameBytes, " bytes long"));
  }
  seen_fields_ = 0;
  entries_.emplace_back().name = std::move(name);
  return true;
}

bool HeaderReader::BeginField(absl::string_view name) {
  if (name == "dtype") {
    field_ = kDType;
  } else if (name == "shape") {
    field_ = kShape;
  } else if (name == "data_offsets") {
    field_ = kOffsets;
  } else {
    return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name), " has the unknown field ",
                             Quoted(name)));
  }
  if ((seen_fields_ & field_) != 0) {
    return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name), " has ", name, " twice"));
  }
  seen_fields_ |= field_;
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::kHeader) {
    place_ = Place::kOutside;
    return true;
  }
  if (place_ == Place::kTensor &&
      (seen_fields_ != kAllFields || entries_.back().offsets.size() != 2)) {
    return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name),
                             " needs dtype, shape and two data_offsets"));
  }
  place_ = Place::kHeader;
  return true;
}

// What the first bytes of a file that is not safetensors betray: the reason for the message alone.
std::optional<absl::string_view> KnownOtherFormat(absl::string_view bytes) {
  if (absl::StartsWith(bytes, "PK\x03\x04")) {
    return "a zip archive (torch.save writes those)";
  }
  if (bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5) {
    return "a pickle";
  }
  if (absl::StartsWith(bytes, "GGUF")) {
    return "a GGUF file";
  }
  if (absl::StartsWith(bytes, "\x1f\x8b")) {
    return "a gzip archive";
  }
  return std::nullopt;
}

absl::Status NotSafetensors(absl::string_view file_name, absl::string_view bytes,
                            absl::string_view message) {
  const std::optional<absl::string_view> format = KnownOtherFormat(bytes);
  if (!format.has_value()) {
    return InvalidAdapterError("MALFORMED_SAFETENSORS", file_name,
                               absl::StrCat(file_name, ": ", message));
  }
  return InvalidAdapterError(
      "UNSAFE_FILE", file_name,
      absl::StrCat(file_name, " is ", *format,
                   " and not safetensors; save the adapter as safetensors (PEFT: "
                   "save_pretrained(dir, safe_serialization=True))"));
}

uint64_t LoadLittleEndian64(absl::string_view bytes) {
  uint64_t value = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

// The header's JSON text, once its length and first byte are plausible.
absl::StatusOr<absl::string_view> FindHeader(absl::string_view file_name, absl::string_view bytes,
                                             const SafetensorsLimits& limits) {
  if (bytes.size() < kLengthBytes) {
    return NotSafetensors(
        file_name, bytes,
        absl::StrCat("file of ", bytes.size(), " bytes is too short to be safetensors"));
  }
  const uint64_t length = LoadLittleEndian64(bytes);
  if (length > bytes.size() - kLengthBytes) {
    return NotSafetensors(file_name, bytes,
                          absl::StrCat("header length ", length, " passes the end of the file (",
                                       bytes.size(), " bytes)"));
  }
  if (length > static_cast<uint64_t>(limits.max_header_bytes)) {
    return NotSafetensors(
        file_name, bytes,
        absl::StrCat("header length ", length, " exceeds the limit of ", limits.max_header_bytes,
                     " bytes (max_adapter_header_bytes)"));
  }
  const absl::string_view header = bytes.substr(kLengthBytes, length);
  if (header.empty() || header[0] != '{') {
    return NotSafetensors(file_name, bytes, "header does not begin with '{'");
  }
  // The JSON lexer takes a NUL byte for the end of its input and would not see what follows.
  if (const size_t nul = header.find('\0'); nul != absl::string_view::npos) {
    return NotSafetensors(file_name, bytes, absl::StrCat("header has a NUL byte at byte ", nul));
  }
  return header;
}

// Bytes that a tensor of this dtype and shape takes, or nothing when that overflows.
std::optional<uint64_t> NumBytes(const HeaderEntry& entry) {
  uint64_t num_bytes = static_cast<uint64_t>(ElementSize(entry.dtype));
  for (int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(num_bytes, static_cast<uint64_t>(dim), &num_bytes)) {
      return std::nullopt;
    }
  }
  return num_bytes;
}

absl::Status CheckNamesAreUnique(absl::string_view file_name, std::vector<HeaderEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const HeaderEntry& a, const HeaderEntry& b) { return a.name < b.name; });
  const auto twin =
      std::adjacent_find(entries.begin(), entries.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twin == entries.end()) {
    return absl::OkStatus();
  }
  return InvalidAdapterError(
      "MALFORMED_SAFETENSORS", twin->name,
      absl::StrCat(file_name, ": tensor ", Quoted(twin->name), " appears twice"));
}

// Requires the tensors, in order of their offsets, to tile `data_bytes` exactly.
absl::Status CheckLayout(absl::string_view file_name, std::vector<HeaderEntry>& entries,
                         uint64_t data_bytes) {
  const auto malformed = [&](const HeaderEntry& entry, absl::string_view message) {
    return InvalidAdapterError(
        "MALFORMED_SAFETENSORS", entry.name,
        absl::StrCat(file_name, ": tensor ", Quoted(entry.name), " ", message));
  };
  std::sort(entries.begin(), entries.end(),
            [](const HeaderEntry& a, const HeaderEntry& b) { return a.offsets < b.offsets; });
  uint64_t position = 0;
  for (const HeaderEntry& entry : entries) {
    const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
    const std::string range = absl::StrCat("[", begin, ", ", end, ")");
    if (begin > end || end > data_bytes) {
      return malformed(entry, absl::StrCat("has data_offsets ", range, " outside the ", data_bytes,
                                           " bytes of data"));
    }
    if (begin != position) {
      return malformed(entry, absl::StrCat("at ", range,
                                           begin < position ? " overlaps the tensor before it"
                                                            : " leaves a gap before it",
                                           ", which ends at ", position));
    }
    const std::optional<uint64_t> num_bytes = NumBytes(entry);
    if (!num_bytes.has_value() || *num_bytes != end - begin) {
      return malformed(
          entry, absl::StrCat("of dtype ", DTypeName(entry.dtype), " and shape [",
                              absl::StrJoin(entry.shape, ", "), "] needs ",
                              num_bytes.has_value() ? absl::StrCat(*num_bytes) : "more than 2^64",
                              " bytes, but its data_offsets ", range, " hold ", end - begin));
    }
    position = end;
  }
  if (position != data_bytes) {
    return InvalidAdapterError("MALFORMED_SAFETENSORS", file_name,
                               absl::StrCat(file_name, ": ", data_bytes - position,
                                            " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ElementSize(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].size; }

absl::string_view DTypeName(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }

int64_t TensorView::num_elements() const {
  return static_cast<int64_t>(bytes.size()) / ElementSize(dtype);
}

absl::StatusOr<SafetensorsFile> ParseSafetensors(absl::string_view file_name,
                                                 std::span<const std::byte> bytes,
                                                 const SafetensorsLimits& limits) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  TENON_ASSIGN_OR_RETURN(const absl::string_view header, FindHeader(file_name, text, limits));
  HeaderReader reader(file_name, limits);
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  TENON_RETURN_IF_ERROR(reader.status());

  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + header.size());
  TENON_RETURN_IF_ERROR(CheckNamesAreUnique(file_name, reader.entries()));
  TENON_RETURN_IF_ERROR(CheckLayout(file_name, reader.entries(), data.size()));
  SafetensorsFile file;
  file.metadata = std::move(reader.metadata());
  for (HeaderEntry& entry : reader.entries()) {
    TensorView view{entry.dtype, std::move(entry.shape),
                    data.subspan(entry.offsets[0], entry.offsets[1] - entry.offsets[0])};
    file.tensors.emplace(std::move(entry.name), std::move(view));
  }
  return file;
}

}  // namespace tenon
