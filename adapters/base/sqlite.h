// A thin wrapper of SQLite: a connection, a statement and a transaction, with Status for errors.
#ifndef TENON_ADAPTERS_BASE_SQLITE_H_
#define TENON_ADAPTERS_BASE_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// One prepared statement. Indices of Bind count from 1 and of columns from 0, as in SQLite. Ends
/// before its connection. Not thread-safe.
class SqliteStatement {
 public:
  /// Text is copied.
  void Bind(int index, int64_t value);
  void Bind(int index, absl::string_view text);
  void BindReal(int index, double value);

  /// True when there is a row to read, false at the end.
  absl::StatusOr<bool> Step();
  /// Runs a statement that returns no rows.
  absl::Status Run();

  double Real(int column) const { return sqlite3_column_double(statement_.get(), column); }
  int64_t Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  std::string Text(int column) const;

 private:
  friend class SqliteConnection;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  SqliteStatement(sqlite3_stmt* statement, std::string name)
      : statement_(statement), name_(std::move(name)) {}

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  std::string name_;
};

/// The rows that are left, each as `read` makes it: a Record, or a StatusOr whose error ends it.
template <typename Record, typename Read>
absl::StatusOr<std::vector<Record>> ReadAll(SqliteStatement& rows, Read read) {
  std::vector<Record> records;
  while (true) {
    absl::StatusOr<bool> found = rows.Step();
    if (!found.ok()) {
      return found.status();
    }
    if (!*found) {
      return records;
    }
    absl::StatusOr<Record> record = read(std::as_const(rows));
    if (!record.ok()) {
      return record.status();
    }
    records.push_back(*std::move(record));
  }
}

/// One connection. Not thread-safe: its owner guards it with a mutex.
///
/// Errors: RESOURCE_EXHAUSTED when the disk is full, DATA_LOSS for a file that is no sound
/// database, UNAVAILABLE for I/O errors and locks, INTERNAL for the rest.
class SqliteConnection {
 public:
  /// Opens or creates the database `path`. Errors call it `name`, for example "adapter catalogue".
  static absl::StatusOr<SqliteConnection> Open(const std::string& path, absl::string_view name);
  /// The same for the one process that the database belongs to, locked until the connection ends:
  /// what is committed is on the disk, and foreign keys hold.
  static absl::StatusOr<SqliteConnection> OpenOwned(const std::string& path,
                                                    absl::string_view name);

  /// Runs statements without parameters or results.
  absl::Status Execute(const char* sql);
  absl::StatusOr<SqliteStatement> Prepare(absl::string_view sql);
  int64_t last_insert_rowid() const { return sqlite3_last_insert_rowid(connection_.get()); }

 private:
  friend class SqliteTransaction;
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  SqliteConnection(sqlite3* connection, absl::string_view name)
      : connection_(connection), name_(name) {}

  std::unique_ptr<sqlite3, Close> connection_;
  std::string name_;
};

/// A write transaction, rolled back when it goes without Commit.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteConnection* connection);
  SqliteTransaction(SqliteTransaction&& other) noexcept
      : connection_(std::exchange(other.connection_, nullptr)), name_(std::move(other.name_)) {}
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;
  ~SqliteTransaction();

  /// Durable when OK. After an error the transaction is rolled back in this process, but what
  /// reached the disk may still be replayed by the next one: see Catalogue.
  absl::Status Commit();

 private:
  SqliteTransaction(sqlite3* connection, std::string name)
      : connection_(connection), name_(std::move(name)) {}

  sqlite3* connection_;  // Null once moved from.
  std::string name_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_SQLITE_H_
