// FileWatch: tells when a file may have changed.
#ifndef TENON_SERVER_TENANT_FILE_WATCH_H_
#define TENON_SERVER_TENANT_FILE_WATCH_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// The content of a file. UNAVAILABLE, naming it, when it cannot be read.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

/// Watches the folder of a file with inotify(7), so that a file that is written, replaced by rename
/// or reached through a symbolic link that is switched (as Kubernetes updates mounted secrets) is
/// noticed, and calls `on_change` on a thread of its own with what the file now holds, or the error
/// of reading it. Calls for the same content again are left out.
class FileWatch {
 public:
  using OnChange = std::function<void(const absl::StatusOr<std::string>& content)>;

  /// Does not call for what is there already, which is `known`. UNAVAILABLE when the folder cannot
  /// be watched.
  static absl::StatusOr<std::unique_ptr<FileWatch>> Start(const std::string& path,
                                                          std::string known, OnChange on_change);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

 private:
  FileWatch(std::string path, std::string known, OnChange on_change, int events, int stop);
  void Run();
  void Check();

  const std::string path_;
  const OnChange on_change_;
  const int events_;                  // inotify
  const int stop_;                    // eventfd
  std::optional<std::string> known_;  // the thread's; nothing: it could not be read
  std::thread thread_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_FILE_WATCH_H_
