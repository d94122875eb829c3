// How tenonctl prints: tables, sizes, times and JSON.
#ifndef TENON_CLIENT_TENONCTL_OUTPUT_H_
#define TENON_CLIENT_TENONCTL_OUTPUT_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tenon/v1/adapters.pb.h"
#include "tenon/v1/generation.pb.h"

namespace tenon {

/// Columns padded to their longest cell, two spaces apart; the first row is the heading. Cells of a
/// column that holds numbers only stand to the right. Rows are of equal length.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

/// "812 B", "3.4 MiB".
std::string FormatBytes(int64_t num_bytes);

/// `text` without control characters, which could move the cursor or recolour a terminal; line ends
/// and tabs stay.
std::string PrintableText(absl::string_view text);

/// Indented JSON with the field names of the .proto files and a line end. Fields without a value
/// are there as well.
std::string ToJson(const google::protobuf::Message& message);

/// One line of JSON, for streams of messages.
std::string ToJsonLine(const google::protobuf::Message& message);

/// "2026-11-25 22:14:05Z".
std::string FormatTime(const google::protobuf::Timestamp& time);
/// "live", "draining", "quarantined".
std::string StateWord(const v1::Adapter& adapter);
/// "upload", "promote", ...
std::string ActionWord(v1::AliasAction action);

std::string FormatAdapters(const std::vector<v1::Adapter>& adapters);
std::string FormatAdapter(const v1::Adapter& adapter);
/// A row for each field in which they differ.
std::string FormatDifferences(const v1::Adapter& first, const v1::Adapter& second);
/// Passed or failed, and a line for each probe.
std::string FormatAcceptance(const v1::AcceptanceReport& report);
/// What the server made of an upload, on two indented lines.
std::string FormatUploadReport(const v1::Adapter& adapter);
std::string FormatModel(const v1::GetModelResponse& model);

/// One line about the end of a sample: reason, tokens, adapter version and times.
std::string FormatFinish(const v1::Finish& finish);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_OUTPUT_H_
