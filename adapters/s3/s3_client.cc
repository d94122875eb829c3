#include "adapters/s3/s3_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr absl::string_view kService = "s3";

// The Status of an answer that is no success.
absl::Status ErrorOf(const HttpResponse& response, absl::string_view what) {
  const std::string message =
      absl::StrCat(what, ": HTTP ", response.status, " ", ParseError(response.body));
  switch (response.status) {
    case 404:
      return absl::NotFoundError(message);
    case 403:
    case 401:
      return absl::PermissionDeniedError(message);
    case 409:  // two conditional writes at the same time
    case 412:
      return absl::AbortedError(message);
    default:
      return absl::FailedPreconditionError(message);
  }
}

bool Succeeded(const HttpResponse& response) {
  return response.status >= 200 && response.status < 300;
}

std::string Header(const HttpResponse& response, const std::string& name) {
  const auto found = response.headers.find(name);
  return found == response.headers.end() ? std::string() : found->second;
}

bool IsBucketName(absl::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(static_cast<unsigned char>(c)) ||
                  absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '.';
         });
}

}  // namespace

absl::StatusOr<S3Location> ParseS3Location(absl::string_view text) {
  S3Location location;
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, "s3://")) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(text), " is not s3://bucket/prefix"));
  }
  const size_t slash = rest.find('/');
  location.bucket = std::string(rest.substr(0, slash));
  if (!IsBucketName(location.bucket)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the bucket of ", Quoted(text),
                     " is not 3 to 63 of lower-case letters, digits, '-' and '.'"));
  }
  if (slash != absl::string_view::npos) {
    const absl::string_view prefix = absl::StripSuffix(rest.substr(slash + 1), "/");
    location.prefix = prefix.empty() ? "" : absl::StrCat(prefix, "/");
  }
  return location;
}

S3Client::S3Client(Options options) : options_(std::move(options)) {
  const S3Location& location = options_.location;
  std::string endpoint = location.endpoint.empty()
                             ? absl::StrCat("https://s3.", location.region, ".amazonaws.com")
                             : location.endpoint;
  const size_t host = endpoint.find("://") + 3;
  scheme_ = endpoint.substr(0, host);
  host_ = std::string(absl::StripSuffix(absl::string_view(endpoint).substr(host), "/"));
  root_ = "/";
  if (location.path_style) {
    root_ = absl::StrCat("/", location.bucket, "/");
  } else {
    host_ = absl::StrCat(location.bucket, ".", host_);
  }
}

absl::StatusOr<HttpResponse> S3Client::SendOnce(const Call& call,
                                                absl::string_view payload_sha256) const {
  TENON_ASSIGN_OR_RETURN(const S3Credentials credentials, options_.credentials());
  const absl::Time now = options_.retry.clock();
  SignedParts parts;
  parts.method = call.method;
  parts.path = absl::StrCat(root_, UriEncode(call.key, /*keep_slash=*/true));
  parts.query = call.query;
  parts.payload_sha256 = std::string(payload_sha256);
  parts.headers = {{"host", host_},
                   {"x-amz-content-sha256", parts.payload_sha256},
                   {"x-amz-date", AmzDate(now)}};
  if (!credentials.session_token.empty()) {
    parts.headers.emplace_back("x-amz-security-token", credentials.session_token);
  }
  parts.headers.insert(parts.headers.end(), call.headers.begin(), call.headers.end());
  HttpRequest request;
  request.method = call.method;
  request.url = absl::StrCat(scheme_, host_, parts.path);
  if (!call.query.empty()) {
    absl::StrAppend(&request.url, "?", CanonicalQuery(call.query));
  }
  request.headers = parts.headers;
  request.headers.emplace_back(
      "authorization", Authorization(parts, credentials, options_.location.region, kService, now));
  request.body = call.body;
  request.sink = call.sink;
  return options_.transport(request);
}

absl::StatusOr<HttpResponse> S3Client::Send(const Call& call, int* tries) const {
  const std::string payload_sha256 = Sha256Hex(call.body);
  absl::StatusOr<HttpResponse> response =
      SendWithRetries(options_.retry, [&] { return SendOnce(call, payload_sha256); }, tries);
  return response.ok() ? std::move(response)
                       : Annotate(response.status(), absl::StrCat(call.method, " ", call.key));
}

absl::StatusOr<S3Object> S3Client::Get(absl::string_view key) const {
  Call call;
  call.method = "GET";
  call.key = absl::StrCat(options_.location.prefix, key);
  TENON_ASSIGN_OR_RETURN(HttpResponse response, Send(call));
  if (!Succeeded(response)) {
    return ErrorOf(response, absl::StrCat("read ", key));
  }
  std::string etag = Header(response, "etag");
  return S3Object{std::move(response.body), std::move(etag)};
}

absl::Status S3Client::Download(absl::string_view key, const BodySink& sink,
                                const std::function<absl::Status()>& restart) const {
  Call call;
  call.method = "GET";
  call.key = absl::StrCat(options_.location.prefix, key);
  call.sink = sink;
  bool first = true;
  const auto send = [&]() -> absl::StatusOr<HttpResponse> {
    if (!std::exchange(first, false)) {
      TENON_RETURN_IF_ERROR(restart());
    }
    return SendOnce(call, Sha256Hex(""));
  };
  const absl::StatusOr<HttpResponse> response = SendWithRetries(options_.retry, send, nullptr);
  if (!response.ok()) {
    return Annotate(response.status(), absl::StrCat("read ", key));
  }
  return Succeeded(*response) ? absl::OkStatus() : ErrorOf(*response, absl::StrCat("read ", key));
}

absl::StatusOr<std::string> S3Client::Put(absl::string_view key, absl::string_view bytes,
                                          const PutCondition& condition) const {
  const bool conditional = condition.absent || !condition.etag.empty();
  if (!conditional && static_cast<int64_t>(bytes.size()) > options_.part_bytes) {
    return PutParts(key, bytes);
  }
  Call call;
  call.method = "PUT";
  call.key = absl::StrCat(options_.location.prefix, key);
  call.body = bytes;
  if (condition.absent) {
    call.headers.emplace_back("if-none-match", "*");
  } else if (!condition.etag.empty()) {
    call.headers.emplace_back("if-match", condition.etag);
  }
  int tries = 0;
  TENON_ASSIGN_OR_RETURN(const HttpResponse response, Send(call, &tries));
  if (Succeeded(response)) {
    return Header(response, "etag");
  }
  const absl::Status refused = ErrorOf(response, absl::StrCat("write ", key));
  if (absl::IsAborted(refused) && tries > 1) {
    absl::StatusOr<S3Object> there = Get(key);
    if (there.ok() && there->bytes == bytes) {
      return std::move(there->etag);
    }
  }
  return refused;
}

absl::StatusOr<std::string> S3Client::PutParts(absl::string_view key,
                                               absl::string_view bytes) const {
  Call call;
  call.method = "POST";
  call.key = absl::StrCat(options_.location.prefix, key);
  call.query = {{"uploads", ""}};
  TENON_ASSIGN_OR_RETURN(const HttpResponse begun, Send(call));
  if (!Succeeded(begun)) {
    return ErrorOf(begun, absl::StrCat("begin to write ", key));
  }
  TENON_ASSIGN_OR_RETURN(const std::string id, ParseUploadId(begun.body));
  std::string parts = "<CompleteMultipartUpload>";
  absl::Status status;
  for (int number = 1; status.ok() && !bytes.empty(); ++number) {
    call.method = "PUT";
    call.query = {{"partNumber", absl::StrCat(number)}, {"uploadId", id}};
    call.body = bytes.substr(0, static_cast<size_t>(options_.part_bytes));
    bytes.remove_prefix(call.body.size());
    const absl::StatusOr<HttpResponse> sent = Send(call);
    status = !sent.ok()         ? sent.status()
             : Succeeded(*sent) ? absl::OkStatus()
                                : ErrorOf(*sent, absl::StrCat("write a part of ", key));
    if (status.ok()) {
      absl::StrAppend(&parts, "<Part><PartNumber>", number, "</PartNumber><ETag>",
                      Header(*sent, "etag"), "</ETag></Part>");
    }
  }
  parts += "</CompleteMultipartUpload>";
  call.query = {{"uploadId", id}};
  if (status.ok()) {
    call.method = "POST";
    call.body = parts;
    TENON_ASSIGN_OR_RETURN(const HttpResponse done, Send(call));
    const std::string error = ParseError(done.body);
    if (Succeeded(done) && error.empty()) {
      return Header(done, "etag");
    }
    status = Succeeded(done) ? absl::UnavailableError(absl::StrCat("write ", key, ": ", error))
                             : ErrorOf(done, absl::StrCat("write ", key));
  }
  call.method = "DELETE";  // the parts that are there are paid for until somebody says so
  call.body = {};
  SendOnce(call, Sha256Hex("")).status().IgnoreError();
  return status;
}

absl::Status S3Client::Delete(absl::string_view key) const {
  Call call;
  call.method = "DELETE";
  call.key = absl::StrCat(options_.location.prefix, key);
  TENON_ASSIGN_OR_RETURN(const HttpResponse response, Send(call));
  return Succeeded(response) || response.status == 404
             ? absl::OkStatus()
             : ErrorOf(response, absl::StrCat("delete ", key));
}

absl::StatusOr<std::vector<S3Entry>> S3Client::List(absl::string_view prefix) const {
  const std::string& root = options_.location.prefix;
  std::vector<S3Entry> entries;
  std::string next;
  do {
    Call call;
    call.method = "GET";
    call.query = {{"list-type", "2"}, {"prefix", absl::StrCat(root, prefix)}};
    if (!next.empty()) {
      call.query.emplace_back("continuation-token", next);
    }
    TENON_ASSIGN_OR_RETURN(const HttpResponse response, Send(call));
    if (!Succeeded(response)) {
      return ErrorOf(response, absl::StrCat("list ", prefix));
    }
    TENON_ASSIGN_OR_RETURN(S3ListPage page, ParseListPage(response.body));
    for (S3Entry& entry : page.entries) {
      if (absl::StartsWith(entry.key, root)) {
        entry.key.erase(0, root.size());
        entries.push_back(std::move(entry));
      }
    }
    next = std::move(page.next);
  } while (!next.empty());
  return entries;
}

}  // namespace tenon
