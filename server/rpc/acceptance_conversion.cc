#include "server/rpc/acceptance_conversion.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// How much longer than the expected text's own tokens an answer may be that begins with it.
constexpr int32_t kTextSlackTokens = 8;

// Failed probes that an error names.
constexpr int kNamedFailures = 3;

absl::Status CheckLength(absl::string_view field, int64_t length, int64_t low, int64_t high,
                         absl::string_view unit) {
  if (length >= low && length <= high) {
    return absl::OkStatus();
  }
  return InvalidFieldError(
      field, absl::StrCat("length of ", length, " ", unit, " is not in [", low, ", ", high, "]"));
}

absl::Status CheckTokens(const std::string& field, const v1::TokenIds& tokens, int64_t max,
                         const RequestLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckLength(field, tokens.ids_size(), 1, max, "tokens"));
  return ValidateTokenIds(field, tokens.ids(), max, limits);
}

absl::Status CheckLossBound(const std::string& field, const v1::LossBound& bound,
                            const RequestLimits& limits) {
  if (!std::isfinite(bound.loss()) || bound.loss() < 0) {
    return InvalidFieldError(absl::StrCat(field, ".loss"),
                             absl::StrCat(bound.loss(), " is not a finite number from 0 on"));
  }
  switch (bound.target_case()) {
    case v1::LossBound::kText:
      return CheckLength(absl::StrCat(field, ".text"), static_cast<int64_t>(bound.text().size()), 1,
                         kMaxExpectedTextBytes, "bytes");
    case v1::LossBound::kTokens:
      return CheckTokens(absl::StrCat(field, ".tokens.ids"), bound.tokens(), kMaxExpectedTokens,
                         limits);
    case v1::LossBound::TARGET_NOT_SET:
      break;
  }
  return InvalidFieldError(field, "one of text and tokens must be set");
}

absl::Status CheckExpectation(const std::string& field, const v1::Probe& probe,
                              const RequestLimits& limits) {
  switch (probe.expectation_case()) {
    case v1::Probe::kExpectedTokens:
      return CheckTokens(absl::StrCat(field, ".expected_tokens.ids"), probe.expected_tokens(),
                         kMaxExpectedTokens, limits);
    case v1::Probe::kExpectedText:
      return CheckLength(absl::StrCat(field, ".expected_text"),
                         static_cast<int64_t>(probe.expected_text().size()), 1,
                         kMaxExpectedTextBytes, "bytes");
    case v1::Probe::kMaxLoss:
      return CheckLossBound(absl::StrCat(field, ".max_loss"), probe.max_loss(), limits);
    case v1::Probe::EXPECTATION_NOT_SET:
      break;
  }
  return InvalidFieldError(field, "one of expected_tokens, expected_text and max_loss must be set");
}

absl::Status CheckProbe(const std::string& field, const v1::Probe& probe,
                        const RequestLimits& limits) {
  const std::string& name = probe.name();
  TENON_RETURN_IF_ERROR(CheckLength(absl::StrCat(field, ".name"), static_cast<int64_t>(name.size()),
                                    0, kMaxProbeNameBytes, "bytes"));
  if (!std::all_of(name.begin(), name.end(),
                   [](unsigned char c) { return absl::ascii_isprint(c); })) {
    return InvalidFieldError(absl::StrCat(field, ".name"), "must be printable ASCII");
  }
  switch (probe.input_case()) {
    case v1::Probe::kPrompt:
      TENON_RETURN_IF_ERROR(ValidateText(absl::StrCat(field, ".prompt"), probe.prompt(), limits));
      break;
    case v1::Probe::kTokens:
      TENON_RETURN_IF_ERROR(CheckTokens(absl::StrCat(field, ".tokens.ids"), probe.tokens(),
                                        limits.max_context_tokens, limits));
      break;
    case v1::Probe::INPUT_NOT_SET:
      return InvalidFieldError(field, "one of prompt and tokens must be set");
  }
  return CheckExpectation(field, probe, limits);
}

std::vector<int32_t> Ids(const v1::TokenIds& tokens) {
  return {tokens.ids().begin(), tokens.ids().end()};
}

absl::StatusOr<std::vector<int32_t>> EncodeField(const std::string& field, absl::string_view text,
                                                 bool add_special_tokens,
                                                 const Tokenizer& tokenizer) {
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, add_special_tokens);
  if (!ids.ok()) {
    return InvalidFieldError(field, ids.status().message());
  }
  if (ids->empty()) {
    return InvalidFieldError(field, "has no tokens");
  }
  return ids;
}

// Fills in what the probe expects, and returns the tokens that it takes behind the prompt.
absl::StatusOr<int64_t> ReadExpectation(const std::string& field, const v1::Probe& from,
                                        const Tokenizer& tokenizer, AcceptanceProbe& probe) {
  if (from.has_expected_tokens()) {
    probe.expectation = ExpectedTokens{Ids(from.expected_tokens())};
    return from.expected_tokens().ids_size();
  }
  if (from.has_expected_text()) {
    TENON_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                           EncodeField(absl::StrCat(field, ".expected_text"), from.expected_text(),
                                       /*add_special_tokens=*/false, tokenizer));
    const int32_t max_tokens =
        std::min(static_cast<int32_t>(ids.size()) + kTextSlackTokens, kMaxExpectedTokens);
    probe.expectation = ExpectedText{from.expected_text(), max_tokens};
    return max_tokens;
  }
  ExpectedLoss loss{Ids(from.max_loss().tokens()), from.max_loss().loss()};
  const std::string target = absl::StrCat(field, ".max_loss.text");
  if (from.max_loss().has_text()) {
    TENON_ASSIGN_OR_RETURN(loss.target, EncodeField(target, from.max_loss().text(),
                                                    /*add_special_tokens=*/false, tokenizer));
  }
  TENON_RETURN_IF_ERROR(CheckLength(target, static_cast<int64_t>(loss.target.size()), 1,
                                    kMaxExpectedTokens, "tokens"));
  const int64_t num_tokens = static_cast<int64_t>(loss.target.size()) + 1;
  probe.expectation = std::move(loss);
  return num_tokens;
}

}  // namespace

absl::Status ValidateProbes(const v1::UploadHeader& header, const RequestLimits& limits) {
  if (header.probes_size() > kMaxProbes) {
    return InvalidFieldError(
        "header.probes",
        absl::StrCat(header.probes_size(), " probes exceed the limit of ", kMaxProbes));
  }
  for (int i = 0; i < header.probes_size(); ++i) {
    TENON_RETURN_IF_ERROR(
        CheckProbe(absl::StrCat("header.probes[", i, "]"), header.probes(i), limits));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<AcceptanceProbe>> ToProbes(const v1::UploadHeader& header,
                                                      const RequestLimits& limits,
                                                      const Tokenizer& tokenizer,
                                                      int64_t num_virtual_tokens) {
  TENON_RETURN_IF_ERROR(ValidateProbes(header, limits));
  const int64_t room = limits.max_context_tokens - num_virtual_tokens;
  std::vector<AcceptanceProbe> probes;
  probes.push_back(ForwardPassProbe(limits.vocab_size, room));
  for (int i = 0; i < header.probes_size(); ++i) {
    const v1::Probe& from = header.probes(i);
    const std::string field = absl::StrCat("header.probes[", i, "]");
    AcceptanceProbe& probe = probes.emplace_back();
    probe.name = from.name().empty() ? absl::StrCat("probe ", i + 1) : from.name();
    probe.prompt = Ids(from.tokens());
    if (from.has_prompt()) {
      TENON_ASSIGN_OR_RETURN(probe.prompt,
                             EncodeField(absl::StrCat(field, ".prompt"), from.prompt(),
                                         /*add_special_tokens=*/true, tokenizer));
    }
    TENON_ASSIGN_OR_RETURN(const int64_t behind, ReadExpectation(field, from, tokenizer, probe));
    const int64_t length = static_cast<int64_t>(probe.prompt.size()) + behind;
    if (length > room) {
      return InvalidFieldError(
          field, absl::StrCat("needs ", length, " tokens of context, which has room for ", room));
    }
  }
  return probes;
}

v1::AcceptanceReport ToProto(const AcceptanceReport& report) {
  v1::AcceptanceReport proto;
  proto.set_passed(report.passed);
  *proto.mutable_time() = ToTimestamp(report.time);
  proto.set_elapsed_ms(absl::ToDoubleMilliseconds(report.elapsed));
  for (const ProbeOutcome& outcome : report.results) {
    v1::ProbeResult& result = *proto.add_results();
    result.set_name(outcome.name);
    result.set_passed(outcome.passed);
    result.set_details(outcome.details);
    if (outcome.loss.has_value()) {
      result.set_loss(*outcome.loss);
    }
  }
  return proto;
}

absl::Status AcceptanceError(absl::string_view adapter, const AcceptanceReport& report) {
  if (report.passed) {
    return absl::OkStatus();
  }
  std::string failures;
  int num_failed = 0;
  for (const ProbeOutcome& outcome : report.results) {
    if (!outcome.passed && ++num_failed <= kNamedFailures) {
      absl::StrAppend(&failures, "; ", outcome.name, ": ", outcome.details);
    }
  }
  return PreconditionError("ACCEPTANCE_FAILED", adapter,
                           absl::StrCat("adapter ", adapter, " failed ", num_failed, " of ",
                                        report.results.size(), " acceptance checks", failures));
}

std::string ToCatalogue(const v1::AcceptanceReport& report) {
  std::string json;
  return google::protobuf::util::MessageToJsonString(report, &json).ok() ? json : "";
}

v1::AcceptanceReport FromCatalogue(const std::string& json) {
  v1::AcceptanceReport report;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a newer server
  if (!google::protobuf::util::JsonStringToMessage(json, &report, options).ok()) {
    report.Clear();
  }
  return report;
}

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp proto;
  proto.set_seconds(absl::ToUnixSeconds(time));  // rounds down, so that nanos are not negative
  proto.set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(proto.seconds()))));
  return proto;
}

}  // namespace tenon
