#include "client/tenonctl/request_flags.h"

#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<v1::GenerateRequest> Request(const std::vector<std::string>& args) {
  std::vector<FlagSpec> flags(RequestFlags().begin(), RequestFlags().end());
  flags.insert(flags.end(), OutputFlags().begin(), OutputFlags().end());
  std::span<const std::string> rest = args;
  Arguments arguments;
  if (absl::Status status = arguments.Parse(rest, flags, false); !status.ok()) {
    return status;
  }
  return RequestFromFlags(arguments);
}

TEST(RequestFromFlagsTest, EveryFlagSetsItsField) {
  const v1::GenerateRequest request = Request({"--adapter=fr@2",
                                               "--request-id=r1",
                                               "--temperature=0.5",
                                               "--top-k=4",
                                               "--top-p=0.25",
                                               "--min-p=0.125",
                                               "--repetition-penalty=1.5",
                                               "--presence-penalty=-1",
                                               "--frequency-penalty=2",
                                               "--logit-bias=7:-100",
                                               "--logit-bias=8:0.5",
                                               "--seed=18446744073709551615",
                                               "--n=3",
                                               "--max-tokens=9",
                                               "--min-tokens=2",
                                               "--stop=a",
                                               "--stop=b",
                                               "--stop-token-id=5",
                                               "--ignore-eos",
                                               "--include-stop",
                                               "--logprobs=1",
                                               "--prompt-logprobs=0",
                                               "--token-ids"})
                                          .value();
  v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(R"(
    adapter: "fr@2"
    request_id: "r1"
    sampling {
      temperature: 0.5 top_k: 4 top_p: 0.25 min_p: 0.125 repetition_penalty: 1.5
      presence_penalty: -1 frequency_penalty: 2
      logit_bias { key: 7 value: -100 } logit_bias { key: 8 value: 0.5 }
      seed: 18446744073709551615 n: 3
    }
    stopping {
      max_tokens: 9 min_tokens: 2 stop: "a" stop: "b" stop_token_ids: 5
      ignore_eos: true include_stop: true
    }
    output { logprobs: 1 prompt_logprobs: 0 token_ids: true }
  )",
                                                            &expected));
  EXPECT_EQ(request.ShortDebugString(), expected.ShortDebugString());
}

TEST(RequestFromFlagsTest, AdaptersMayBeSeveralAndHaveWeights) {
  EXPECT_EQ(Request({"--adapter=fr=0.5"})->ShortDebugString(),
            "sampling { } stopping { } output { } adapters { adapter: \"fr\" weight: 0.5 }");
  const v1::GenerateRequest two = Request({"--adapter=fr@2", "--adapter=polite=-1"}).value();
  EXPECT_TRUE(two.adapter().empty());
  ASSERT_EQ(two.adapters_size(), 2);
  EXPECT_EQ(two.adapters(0).adapter(), "fr@2");
  EXPECT_FALSE(two.adapters(0).has_weight());
  EXPECT_EQ(two.adapters(1).weight(), -1.0f);
  EXPECT_EQ(Request({"--adapter=fr=much"}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RequestFromFlagsTest, WithoutFlagsTheServersDefaultsHold) {
  const v1::GenerateRequest request = Request({}).value();
  EXPECT_EQ(request.sampling().ByteSizeLong(), 0u);
  EXPECT_EQ(request.stopping().ByteSizeLong(), 0u);
  EXPECT_EQ(request.output().ByteSizeLong(), 0u);
  EXPECT_EQ(request.input_case(), v1::GenerateRequest::INPUT_NOT_SET);
}

TEST(RequestFromFlagsTest, ZeroIsNotUnset) {
  EXPECT_TRUE(Request({"--temperature=0"}).value().sampling().has_temperature());
}

TEST(RequestFromFlagsTest, WrongValuesAreNamed) {
  for (const char* flag : {"--temperature=warm", "--top-k=1.5", "--seed=-1", "--logit-bias=7",
                           "--logit-bias=x:1", "--logit-bias=7:y", "--stop-token-id=eos"}) {
    const absl::Status status = Request({flag}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << flag;
    const std::string name(flag, std::string(flag).find('='));
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

}  // namespace
}  // namespace tenon
