#include "adapters/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/base/errors.h"
#include "tests/adapters/formats/safetensors_builder.h"

namespace tenon {
namespace {

using ::tenon::testing::Floats;
using ::tenon::testing::LittleEndian64;
using ::tenon::testing::RawSafetensors;
using ::tenon::testing::SafetensorsBuilder;
using ::testing::HasSubstr;

absl::StatusOr<SafetensorsFile> Parse(const std::string& file,
                                      const SafetensorsLimits& limits = {}) {
  return ParseSafetensors("f.safetensors", std::as_bytes(std::span(file.data(), file.size())),
                          limits);
}

TEST(SafetensorsTest, ReadsTensorsAndMetadataInPlace) {
  const std::string file = SafetensorsBuilder()
                               .Add("b", "F32", {2, 1}, Floats({3, 4}))
                               .Add("a", "BF16", {3}, "\x01\x02\x03\x04\x05\x06")
                               .Build();
  const auto parsed = Parse(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->metadata.at("format"), "pt");
  ASSERT_EQ(parsed->tensors.size(), 2u);
  const TensorView& b = parsed->tensors.at("b");
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(b.num_elements(), 2);
  EXPECT_EQ(static_cast<const void*>(b.bytes.data()), file.data() + file.size() - 14);
  EXPECT_EQ(parsed->tensors.at("a").num_elements(), 3);
}

TEST(SafetensorsTest, ReadsEveryDType) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const DType dtype = static_cast<DType>(i);
    const std::string data(2 * ElementSize(dtype), '\0');
    const auto parsed = Parse(SafetensorsBuilder().Add("x", DTypeName(dtype), {2}, data).Build());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->tensors.at("x").dtype, dtype);
  }
}

TEST(SafetensorsTest, AcceptsNoTensorsScalarsEmptyTensorsAndPadding) {
  EXPECT_TRUE(Parse(RawSafetensors("{}")).ok());
  EXPECT_TRUE(Parse(RawSafetensors("{}      ")).ok());
  EXPECT_TRUE(Parse(SafetensorsBuilder().Add("s", "F32", {}, Floats({1})).Build()).ok());
  EXPECT_TRUE(Parse(SafetensorsBuilder()
                        .Add("x", "F32", {1}, Floats({1}))
                        .Add("none", "F32", {0, 7}, "")
                        .Add("y", "F32", {1}, Floats({1}))
                        .Build())
                  .ok());
}

struct BadFile {
  const char* what;
  std::string file;
  const char* message;  // must be part of the error
};

std::string OneTensor(const std::string& entry, size_t data_bytes) {
  return RawSafetensors("{\"x\":" + entry + "}", std::string(data_bytes, '\0'));
}

std::vector<BadFile> BadFiles() {
  const std::string ok = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const std::string two = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":)";
  const std::string huge = LittleEndian64(~uint64_t{0});
  return {
      {"empty file", "", "0 bytes is too short"},
      {"seven bytes", "1234567", "7 bytes is too short"},
      {"length past end", LittleEndian64(3) + "{}", "header length 3 passes the end"},
      {"length 2^64-1", huge + "{}", "header length 18446744073709551615 passes the end"},
      {"no header", RawSafetensors(""), "does not begin with '{'"},
      {"leading space", RawSafetensors(" {}"), "does not begin with '{'"},
      {"array", RawSafetensors("[]"), "does not begin with '{'"},
      {"cut JSON", RawSafetensors("{\"x\":"), "not valid JSON"},
      {"second value", RawSafetensors("{} {}"), "not valid JSON at byte 4"},
      {"hidden after NUL", RawSafetensors(absl::string_view("{}\0evil", 7)), "NUL byte at byte 2"},
      {"bad UTF-8", RawSafetensors("{\"\xff\":1}"), "not valid JSON"},
      {"deep nesting", RawSafetensors("{\"x\":" + std::string(200'000, '[')), "an array"},
      {"deep objects", RawSafetensors(R"({"x":{"dtype":{"dtype":{}}}})"), "an object in its dtype"},
      {"entry is number", RawSafetensors(R"({"x":5})"), "the number 5 instead of an object"},
      {"entry is null", RawSafetensors(R"({"x":null})"), "entry \"x\" is null"},
      {"empty name", RawSafetensors("{\"\":" + ok + "}", "1234"), "tensor name \"\""},
      {"long name", RawSafetensors("{\"" + std::string(2000, 'n') + "\":" + ok + "}", "1234"),
       "(2000 bytes)"},
      {"twice", RawSafetensors("{\"x\":" + ok + ",\"x\":" + ok + "}", "1234"),
       "tensor \"x\" appears twice"},
      {"twice by escape", RawSafetensors("{\"x\":" + ok + ",\"\\u0078\":" + ok + "}", "1234"),
       "tensor \"x\" appears twice"},
      {"field twice", OneTensor(R"({"dtype":"F32","dtype":"F16"})", 0), "has dtype twice"},
      {"unknown field", OneTensor(R"({"dtype":"F32","sparse":true})", 0), "field \"sparse\""},
      {"no dtype", OneTensor(R"({"shape":[1],"data_offsets":[0,4]})", 4), "needs dtype, shape"},
      {"one offset", OneTensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", 4),
       "two data_offsets"},
      {"three offsets", OneTensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})", 4),
       "the number 8 in its data_offsets"},
      {"F8", OneTensor(R"({"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]})", 1), "F8_E4M3"},
      {"dtype number", OneTensor(R"({"dtype":7})", 0), "the number 7 in its dtype"},
      {"negative dim", OneTensor(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4),
       "the number -1 in its shape"},
      {"fractional dim", OneTensor(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4),
       "the number \"1.5\" in its shape"},
      {"dim over int64",
       OneTensor(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]})", 4),
       "9223372036854775808 in its shape"},
      {"product overflows to 4",
       OneTensor(R"({"dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0]})", 0),
       "needs more than 2^64 bytes"},
      {"nine dims", OneTensor(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1]})", 4),
       "more than 8 dimensions"},
      {"too few bytes", OneTensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4),
       "needs 8 bytes, but its data_offsets [0, 4) hold 4"},
      {"past end", OneTensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 4),
       "[0, 8) outside the 4 bytes"},
      {"begin after end", OneTensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4),
       "[4, 0) outside"},
      {"gap in front", OneTensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8),
       "leaves a gap before it"},
      {"trailing bytes", OneTensor(ok, 5), "1 bytes after the last tensor"},
      {"overlap",
       RawSafetensors(two + R"({"dtype":"F32","shape":[1],"data_offsets":[2,6]}})", "123456"),
       "tensor \"y\" at [2, 6) overlaps"},
      {"gap",
       RawSafetensors(two + R"({"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                      "123456789012"),
       "tensor \"y\" at [8, 12) leaves a gap"},
      {"metadata number", RawSafetensors(R"({"__metadata__":{"a":1}})"),
       "__metadata__ entry \"a\" is the number 1"},
      {"metadata nested", RawSafetensors(R"({"__metadata__":{"a":{}}})"), "is an object instead"},
      {"metadata string", RawSafetensors(R"({"__metadata__":"a"})"), "the string \"a\" instead"},
      {"metadata twice", RawSafetensors(R"({"__metadata__":{},"__metadata__":{}})"),
       "__metadata__ appears twice"},
      {"metadata key twice", RawSafetensors(R"({"__metadata__":{"a":"","a":""}})"),
       "key \"a\" appears twice"},
      {"pickle", std::string("\x80\x02}q\x00.........", 14), "is a pickle and not safetensors"},
      {"zip", std::string("PK\x03\x04") + std::string(100, '\0'), "is a zip archive"},
      {"gguf", std::string("GGUF\x03\x00\x00\x00 and more", 17), "is a GGUF file"},
  };
}

TEST(SafetensorsTest, RefusesMalformedFilesByName) {
  for (const BadFile& bad : BadFiles()) {
    const auto parsed = Parse(bad.file);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(bad.message)) << bad.what;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("f.safetensors")) << bad.what;
    EXPECT_LT(parsed.status().message().size(), 600u) << bad.what;
    EXPECT_TRUE(GetErrorDetail(parsed.status()).has_value()) << bad.what;
  }
}

TEST(SafetensorsTest, HeaderLimitIsInclusive) {
  const std::string file = SafetensorsBuilder().AddFilled("x", {1}, 0).Build();
  const int64_t header_bytes = static_cast<int64_t>(file.size()) - 8 - 4;
  EXPECT_TRUE(Parse(file, {.max_header_bytes = header_bytes}).ok());
  const auto refused = Parse(file, {.max_header_bytes = header_bytes - 1});
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr(absl::StrCat("exceeds the limit of ", header_bytes - 1)));
}

TEST(SafetensorsTest, TensorLimitStopsTheParseEarly) {
  SafetensorsBuilder builder;
  for (int i = 0; i < 3; ++i) {
    builder.AddFilled(absl::StrCat("t", i), {1}, 0);
  }
  EXPECT_TRUE(Parse(builder.Build(), {.max_tensors = 3}).ok());
  const auto refused = Parse(builder.Build(), {.max_tensors = 2});
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("more than 2 tensors"));
}

TEST(SafetensorsTest, CopiesKeepTheirViews) {
  const std::string file = SafetensorsBuilder().AddFilled("x", {4}, 1).Build();
  SafetensorsFile copy;
  {
    const auto parsed = Parse(file);
    ASSERT_TRUE(parsed.ok());
    copy = *parsed;
  }
  EXPECT_EQ(copy.tensors.at("x").bytes.size(), 16u);
}

}  // namespace
}  // namespace tenon
