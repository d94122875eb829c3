#include "adapters/base/sqlite.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr int kBusyTimeoutMs = 5000;

absl::Status SqliteError(sqlite3* connection, absl::string_view name) {
  const std::string message = absl::StrCat(name, ": ", sqlite3_errmsg(connection));
  const int os_error = sqlite3_system_errno(connection);
  switch (sqlite3_errcode(connection)) {
    case SQLITE_FULL:
      return QuotaExceededError("STORE_FULL", name, message);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      if (os_error == ENOSPC || os_error == EDQUOT) {
        return QuotaExceededError("STORE_FULL", name, message);
      }
      return absl::UnavailableError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_READONLY:
    case SQLITE_NOMEM:
      return absl::UnavailableError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status Execute(sqlite3* connection, absl::string_view name, const char* sql) {
  if (sqlite3_exec(connection, sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return SqliteError(connection, name);
  }
  return absl::OkStatus();
}

}  // namespace

void SqliteStatement::Bind(int index, int64_t value) {
  sqlite3_bind_int64(statement_.get(), index, value);
}

void SqliteStatement::BindReal(int index, double value) {
  sqlite3_bind_double(statement_.get(), index, value);
}

void SqliteStatement::Bind(int index, absl::string_view text) {
  sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(), SQLITE_TRANSIENT,
                      SQLITE_UTF8);
}

absl::StatusOr<bool> SqliteStatement::Step() {
  switch (sqlite3_step(statement_.get())) {
    case SQLITE_ROW:
      return true;
    case SQLITE_DONE:
      return false;
    default:
      return SqliteError(sqlite3_db_handle(statement_.get()), name_);
  }
}

absl::Status SqliteStatement::Run() { return Step().status(); }

std::string SqliteStatement::Text(int column) const {
  const unsigned char* const text = sqlite3_column_text(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return text == nullptr
             ? std::string()
             : std::string(reinterpret_cast<const char*>(text), static_cast<size_t>(size));
}

absl::StatusOr<SqliteConnection> SqliteConnection::Open(const std::string& path,
                                                        absl::string_view name) {
  sqlite3* raw = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  SqliteConnection connection(raw, name);
  if (result != SQLITE_OK) {
    const std::string opening = absl::StrCat("open the ", name);
    return raw == nullptr ? absl::UnavailableError(absl::StrCat(opening, ": out of memory"))
                          : SqliteError(raw, opening);
  }
  sqlite3_busy_timeout(raw, kBusyTimeoutMs);
  return connection;
}

absl::StatusOr<SqliteConnection> SqliteConnection::OpenOwned(const std::string& path,
                                                             absl::string_view name) {
  // Under an exclusive lock the WAL's index lives in memory rather than in a mapped file that a
  // full disk can deny.
  constexpr char kPragmas[] =
      "PRAGMA locking_mode = EXCLUSIVE;"
      "PRAGMA journal_mode = WAL;"
      "PRAGMA synchronous = FULL;"
      "PRAGMA foreign_keys = ON;";
  TENON_ASSIGN_OR_RETURN(SqliteConnection connection, Open(path, name));
  TENON_RETURN_IF_ERROR(connection.Execute(kPragmas));
  return connection;
}

absl::Status SqliteConnection::Execute(const char* sql) {
  return tenon::Execute(connection_.get(), name_, sql);
}

absl::StatusOr<SqliteStatement> SqliteConnection::Prepare(absl::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()), &statement,
                         nullptr) != SQLITE_OK) {
    return SqliteError(connection_.get(), name_);
  }
  return SqliteStatement(statement, name_);
}

absl::StatusOr<SqliteTransaction> SqliteTransaction::Begin(SqliteConnection* connection) {
  sqlite3* const raw = connection->connection_.get();
  TENON_RETURN_IF_ERROR(tenon::Execute(raw, connection->name_, "BEGIN IMMEDIATE"));
  return SqliteTransaction(raw, connection->name_);
}

SqliteTransaction::~SqliteTransaction() {
  // SQLite rolls some failed transactions back by itself; autocommit says so.
  if (connection_ != nullptr && sqlite3_get_autocommit(connection_) == 0) {
    sqlite3_exec(connection_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

absl::Status SqliteTransaction::Commit() { return Execute(connection_, name_, "COMMIT"); }

}  // namespace tenon
