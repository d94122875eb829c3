#include "adapters/s3/curl_transport.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr size_t kMaxIdleHandles = 16;
constexpr long kStallBytesPerSecond = 1024;

// Once a process, before the first handle, as libcurl asks.
void InitializeCurl() {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  static_cast<void>(initialized);
}

}  // namespace

// One request on one handle.
class CurlTransport::Exchange {
 public:
  Exchange(CURL* handle, const Options& options, const HttpRequest& request)
      : handle_(handle), options_(options), request_(request), rest_(request.body) {}
  ~Exchange() { curl_slist_free_all(headers_); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  absl::StatusOr<HttpResponse> Run() {
    SetUp();
    char error[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(handle_, CURLOPT_ERRORBUFFER, error);
    const CURLcode code = curl_easy_perform(handle_);
    if (!status_.ok()) {
      return status_;
    }
    if (code != CURLE_OK) {
      // A certificate may be renewed, or its store be back tomorrow: served as any other outage.
      return absl::UnavailableError(absl::StrCat(
          "no answer from the object store: ", error[0] == '\0' ? curl_easy_strerror(code) : error,
          code == CURLE_PEER_FAILED_VERIFICATION
              ? "; --s3-ca-file names the authorities that are trusted"
              : ""));
    }
    response_.status = StatusCode();
    return std::move(response_);
  }

 private:
  template <typename Value>
  void Set(CURLoption option, Value value) {
    curl_easy_setopt(handle_, option, value);
  }

  void SetUp() {
    curl_easy_reset(handle_);  // keeps the connections
    Set(CURLOPT_URL, request_.url.c_str());
    Set(CURLOPT_NOSIGNAL, 1L);
    Set(CURLOPT_PROTOCOLS_STR, "http,https");
    Set(CURLOPT_FOLLOWLOCATION, 0L);
    Set(CURLOPT_PROXY, "");
    Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    Set(CURLOPT_CONNECTTIMEOUT_MS,
        static_cast<long>(absl::ToInt64Milliseconds(options_.connect_timeout)));
    Set(CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
    Set(CURLOPT_LOW_SPEED_TIME,
        static_cast<long>(std::max<int64_t>(1, absl::ToInt64Seconds(options_.stall_timeout))));
    if (!options_.ca_file.empty()) {
      Set(CURLOPT_CAINFO, options_.ca_file.c_str());
    }
    SetUpMethod();
    for (const auto& [name, value] : request_.headers) {
      headers_ = curl_slist_append(headers_, absl::StrCat(name, ": ", value).c_str());
    }
    headers_ = curl_slist_append(headers_, "Expect:");
    Set(CURLOPT_HTTPHEADER, headers_);
    Set(CURLOPT_WRITEDATA, this);
    Set(CURLOPT_WRITEFUNCTION, &OnBody);
    Set(CURLOPT_HEADERDATA, this);
    Set(CURLOPT_HEADERFUNCTION, &OnHeader);
  }

  void SetUpMethod() {
    if (request_.method == "GET") {
      Set(CURLOPT_HTTPGET, 1L);
      return;
    }
    if (request_.method == "DELETE") {
      Set(CURLOPT_CUSTOMREQUEST, "DELETE");
      return;
    }
    Set(CURLOPT_UPLOAD, 1L);
    Set(CURLOPT_CUSTOMREQUEST, request_.method.c_str());
    Set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
    Set(CURLOPT_READDATA, this);
    Set(CURLOPT_READFUNCTION, &OnRead);
    Set(CURLOPT_SEEKDATA, this);
    Set(CURLOPT_SEEKFUNCTION, &OnSeek);
  }

  int StatusCode() const {
    long status = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    return static_cast<int>(status);
  }

  absl::Status Take(absl::string_view piece) {
    const int status = StatusCode();
    if (request_.sink != nullptr && status >= 200 && status < 300) {
      return request_.sink(piece);
    }
    if (response_.body.size() + piece.size() > static_cast<size_t>(options_.max_body_bytes)) {
      return absl::DataLossError(absl::StrCat("the object store's answer has more than ",
                                              options_.max_body_bytes, " bytes"));
    }
    response_.body.append(piece.data(), piece.size());
    return absl::OkStatus();
  }

  static size_t OnBody(char* bytes, size_t size, size_t count, void* self) {
    auto* exchange = static_cast<Exchange*>(self);
    exchange->status_ = exchange->Take(absl::string_view(bytes, size * count));
    return exchange->status_.ok() ? size * count : 0;
  }

  static size_t OnHeader(char* bytes, size_t size, size_t count, void* self) {
    auto* exchange = static_cast<Exchange*>(self);
    const absl::string_view line(bytes, size * count);
    const size_t colon = line.find(':');
    if (colon != absl::string_view::npos) {
      exchange->response_.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return size * count;
  }

  static size_t OnRead(char* out, size_t size, size_t count, void* self) {
    auto* exchange = static_cast<Exchange*>(self);
    const size_t taken = std::min(size * count, exchange->rest_.size());
    std::memcpy(out, exchange->rest_.data(), taken);
    exchange->rest_.remove_prefix(taken);
    return taken;
  }

  // A kept connection that the server had closed: libcurl sends the body again from its beginning.
  static int OnSeek(void* self, curl_off_t offset, int origin) {
    auto* exchange = static_cast<Exchange*>(self);
    if (origin != SEEK_SET || offset < 0 ||
        static_cast<size_t>(offset) > exchange->request_.body.size()) {
      return CURL_SEEKFUNC_FAIL;
    }
    exchange->rest_ = exchange->request_.body.substr(static_cast<size_t>(offset));
    return CURL_SEEKFUNC_OK;
  }

  CURL* const handle_;
  const Options& options_;
  const HttpRequest& request_;
  absl::string_view rest_;  // of the body
  curl_slist* headers_ = nullptr;
  HttpResponse response_;
  absl::Status status_;
};

CurlTransport::CurlTransport(Options options) : options_(std::move(options)) { InitializeCurl(); }

CurlTransport::~CurlTransport() {
  absl::MutexLock lock(&mutex_);
  for (void* handle : idle_) {
    curl_easy_cleanup(handle);
  }
}

absl::StatusOr<HttpResponse> CurlTransport::Send(const HttpRequest& request) {
  CURL* handle = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      handle = idle_.back();
      idle_.pop_back();
    }
  }
  if (handle == nullptr && (handle = curl_easy_init()) == nullptr) {
    return absl::ResourceExhaustedError("libcurl gives no handle");
  }
  absl::StatusOr<HttpResponse> response = Exchange(handle, options_, request).Run();
  {
    absl::MutexLock lock(&mutex_);
    if (idle_.size() < kMaxIdleHandles) {
      idle_.push_back(std::exchange(handle, nullptr));
    }
  }
  if (handle != nullptr) {
    curl_easy_cleanup(handle);
  }
  return response;
}

}  // namespace tenon
