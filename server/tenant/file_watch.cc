#include "server/tenant/file_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) {
    return absl::UnavailableError(absl::StrCat("cannot read '", path, "'"));
  }
  return std::move(content).str();
}

absl::StatusOr<std::unique_ptr<FileWatch>> FileWatch::Start(const std::string& path,
                                                            std::string known, OnChange on_change) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  const int stop = eventfd(0, EFD_CLOEXEC);
  if (events < 0 || stop < 0 ||
      inotify_add_watch(events, parent.empty() ? "." : parent.c_str(),
                        IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_DELETE) < 0) {
    close(events);
    close(stop);
    return absl::UnavailableError(absl::StrCat("cannot watch the folder of '", path, "'"));
  }
  return std::unique_ptr<FileWatch>(
      new FileWatch(path, std::move(known), std::move(on_change), events, stop));
}

FileWatch::FileWatch(std::string path, std::string known, OnChange on_change, int events, int stop)
    : path_(std::move(path)),
      on_change_(std::move(on_change)),
      events_(events),
      stop_(stop),
      known_(std::move(known)) {
  thread_ = std::thread([this] { Run(); });
}

FileWatch::~FileWatch() {
  const uint64_t one = 1;
  // An eventfd at 0 takes a 1 without blocking or failing.
  static_cast<void>(!write(stop_, &one, sizeof(one)));
  thread_.join();
  close(events_);
  close(stop_);
}

void FileWatch::Run() {
  Check();  // what changed before the watch began
  std::array<pollfd, 2> wait = {pollfd{events_, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
  while (poll(wait.data(), wait.size(), /*timeout=*/-1) >= 0 || errno == EINTR) {
    if (wait[1].revents != 0) {
      return;
    }
    // Which names the events are about does not matter: the content decides.
    std::array<char, 4096> buffer;
    while (read(events_, buffer.data(), buffer.size()) > 0) {
    }
    Check();
  }
}

void FileWatch::Check() {
  absl::StatusOr<std::string> content = ReadWholeFile(path_);
  const bool same = content.ok() ? known_ == *content : !known_.has_value();
  if (same) {
    return;
  }
  on_change_(content);
  known_ = content.ok() ? std::make_optional(*std::move(content)) : std::nullopt;
}

}  // namespace tenon
