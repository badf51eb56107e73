#pragma once

#include <memory>
#include <string_view>
#include <unordered_map>

#include <SQLiteCpp/SQLiteCpp.h>
#include <SQLiteCpp/VariadicBind.h>

namespace db {

/// The statements of one connection, each compiled once. Must go before the connection does.
class Statements {
 public:
  /// A statement in use: unbound at first, and free for the next when this goes.
  class Use {
   public:
    explicit Use(SQLite::Statement& statement) : statement_(statement) {}
    Use(const Use&) = delete;
    ~Use() {
      statement_.tryReset();  // a failure was thrown by the step that failed
    }
    SQLite::Statement* operator->() { return &statement_; }
    SQLite::Statement& operator*() { return statement_; }

   private:
    SQLite::Statement& statement_;
  };

  explicit Statements(SQLite::Database& connection) : connection_(connection) {}

  /// REQUIRES: `sql` is a literal; its address is its name.
  Use use(const char* sql) {
    auto& statement = compiled_[sql];
    if (statement)
      statement->clearBindings();
    else
      statement = std::make_unique<SQLite::Statement>(connection_, sql);
    return Use(*statement);
  }

 private:
  SQLite::Database& connection_;
  std::unordered_map<const char*, std::unique_ptr<SQLite::Statement>> compiled_;
};

}  // namespace db
