#include "tests/adapters/s3/fault_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tenon {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool SendAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

// Reads until `text` has what `done` asks for; false when the other side is gone first.
template <typename Done>
bool ReadUntil(int fd, std::string& text, Done done) {
  char buffer[65536];
  while (!done(text)) {
    const ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
    if (size <= 0) {
      return false;
    }
    text.append(buffer, static_cast<size_t>(size));
  }
  return true;
}

size_t HeadSize(absl::string_view text) {
  const size_t end = text.find("\r\n\r\n");
  return end == absl::string_view::npos ? 0 : end + 4;
}

size_t ContentLength(absl::string_view head) {
  size_t begin = 0;
  while (begin < head.size()) {
    const size_t end = head.find("\r\n", begin);
    const absl::string_view line = head.substr(begin, end - begin);
    size_t length = 0;
    if (absl::StartsWithIgnoreCase(line, "content-length:") &&
        absl::SimpleAtoi(line.substr(15), &length)) {
      return length;
    }
    begin = end == absl::string_view::npos ? head.size() : end + 2;
  }
  return 0;
}

// One whole message with a Content-Length.
bool ReadMessage(int fd, std::string& text) {
  return ReadUntil(fd, text, [](const std::string& so_far) {
    const size_t head = HeadSize(so_far);
    return head > 0 && so_far.size() >= head + ContentLength(so_far.substr(0, head));
  });
}

}  // namespace

FaultProxy::FaultProxy(int server_port) : server_port_(server_port) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
  listen(listener_, 64);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

FaultProxy::~FaultProxy() {
  stop_ = true;
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    for (const int client : clients_) {
      shutdown(client, SHUT_RDWR);
    }
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void FaultProxy::SetOnly(std::string text) {
  absl::MutexLock lock(&mutex_);
  only_ = std::move(text);
}

int FaultProxy::CountOf(const std::string& text) const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(
      std::count_if(request_lines_.begin(), request_lines_.end(),
                    [&](const std::string& line) { return absl::StrContains(line, text); }));
}

FaultProxy::Fault FaultProxy::FaultFor(const std::string& request_line) {
  absl::MutexLock lock(&mutex_);
  request_lines_.push_back(request_line);
  return absl::StrContains(request_line, only_) ? fault_.load() : Fault::kNone;
}

void FaultProxy::Accept() {
  while (!stop_) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) {
      continue;
    }
    absl::MutexLock lock(&mutex_);
    if (fault_ == Fault::kDown && only_.empty()) {
      close(client);
      continue;
    }
    clients_.push_back(client);
    threads_.emplace_back([this, client] { Serve(client); });
  }
}

void FaultProxy::Serve(int client) {
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(server_port_);
  bool open = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  while (open && !stop_) {
    std::string request;
    open = ReadMessage(client, request) && SendAll(server, request) &&
           Answer(client, server, request.substr(0, request.find("\r\n")));
  }
  close(server);
  absl::MutexLock lock(&mutex_);
  clients_.erase(std::find(clients_.begin(), clients_.end(), client));
  close(client);
}

bool FaultProxy::Answer(int client, int server, const std::string& request_line) {
  const Fault fault = FaultFor(request_line);
  std::string answer;
  if (!ReadMessage(server, answer)) {
    return false;
  }
  const size_t head = HeadSize(answer);
  switch (fault) {
    case Fault::kNone:
      return SendAll(client, answer);
    case Fault::kDown:
      return false;
    case Fault::kStalled: {
      char byte = 0;
      recv(client, &byte, 1, 0);  // until the client gives up, or the proxy ends
      return false;
    }
    case Fault::kBusy: {
      constexpr absl::string_view kBody = "<Error><Code>SlowDown</Code></Error>";
      return SendAll(client, absl::StrCat("HTTP/1.1 503 Slow Down\r\nContent-Length: ",
                                          kBody.size(), "\r\n\r\n", kBody));
    }
    case Fault::kTorn:
      SendAll(client, absl::string_view(answer).substr(0, head + (answer.size() - head) / 2));
      return false;
    case Fault::kCorrupt:
      if (answer.size() > head) {
        answer[head + (answer.size() - head) / 2] ^= 1;
      }
      return SendAll(client, answer);
    case Fault::kSlow:
      for (const char byte : answer) {
        if (stop_ || !SendAll(client, absl::string_view(&byte, 1))) {
          return false;
        }
        absl::SleepFor(absl::Milliseconds(10));
      }
      return true;
  }
  return false;
}

}  // namespace tenon
