// Prepared statements that clients have by name, without their names: text and parameter types, and
// the context in which the text is parsed (parameters.h): a date in it is another one where
// DateStyle is.
//
// Equal statements of one core are one Statement, whoever uses them. On a server a statement has a
// name that is made of its content and context, the same on every core and every backend, so that
// whoever finds it on a backend can use it, and nobody has to tell anybody a number. It is a
// cryptographic hash: clients that could choose two texts of one name would run each other's.
//
// A Statement lives as long as somebody refers to it. One core's data; keys are plain values.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "helios/base/bytes.h"
#include "helios/base/keyed_hash.h"
#include "helios/pool/parameters.h"

namespace helios {

// Tells statements apart: 128 bits of the SHA-256 of their context and content.
struct StatementKey {
  uint64_t high = 0;
  uint64_t low = 0;

  friend bool operator==(const StatementKey&, const StatementKey&) = default;
};

// What the names of our statements on servers begin with; 32 hexadecimal digits follow.
inline constexpr std::string_view statement_name_prefix = "helios_";
inline constexpr size_t statement_name_size = statement_name_prefix.size() + 32;
using StatementName = std::array<char, statement_name_size>;

[[nodiscard]] StatementName name_of(const StatementKey& key) noexcept;
// A name that a client gives could be one of ours by its form.
[[nodiscard]] bool looks_like_ours(std::string_view name) noexcept;

class StatementTable;

class Statement {
 public:
  [[nodiscard]] const StatementKey& key() const noexcept { return key_; }
  // On servers.
  [[nodiscard]] std::string_view name() const noexcept { return {name_.data(), name_.size()}; }
  // A Parse message behind the statement's name: the text, its NUL, the parameter types.
  [[nodiscard]] ByteSpan content() const noexcept { return as_bytes(content_); }
  [[nodiscard]] std::string_view text() const noexcept { return content_.c_str(); }
  // In which it is parsed.
  [[nodiscard]] const ParseContext& context() const noexcept { return context_; }
  // Bytes of memory that it takes, about.
  [[nodiscard]] size_t size() const noexcept { return size_of(content_.size()); }
  [[nodiscard]] static size_t size_of(size_t content_size) noexcept {
    return content_size + overhead;
  }

 private:
  friend class StatementTable;
  friend class StatementRef;
  static constexpr size_t overhead = 288;
  std::string content_;
  ParseContext context_{};
  StatementKey key_;
  StatementName name_{};
  mutable uint32_t references_ = 0;
  StatementTable* table_ = nullptr;
};

// A counted reference to a statement of this core, or null.
class StatementRef {
 public:
  StatementRef() = default;
  explicit StatementRef(const Statement* statement) noexcept : statement_(statement) { take(); }
  StatementRef(const StatementRef& other) noexcept : StatementRef(other.statement_) {}
  StatementRef(StatementRef&& other) noexcept
      : statement_(std::exchange(other.statement_, nullptr)) {}
  StatementRef& operator=(StatementRef other) noexcept {
    std::swap(statement_, other.statement_);
    return *this;
  }
  ~StatementRef() { drop(); }

  [[nodiscard]] bool is_null() const noexcept { return statement_ == nullptr; }
  [[nodiscard]] const Statement& operator*() const noexcept { return *statement_; }
  [[nodiscard]] const Statement* operator->() const noexcept { return statement_; }
  friend bool operator==(const StatementRef& a, const StatementRef& b) noexcept {
    return a.statement_ == b.statement_;
  }

 private:
  void take() noexcept;
  void drop() noexcept;
  const Statement* statement_ = nullptr;
};

// The statements of one core.
class StatementTable {
 public:
  StatementTable() noexcept;
  StatementTable(const StatementTable&) = delete;
  StatementTable& operator=(const StatementTable&) = delete;
  ~StatementTable();  // Requires: no statement is referenced.

  // The statement with this content (Statement::content) in this context. Null when there is none,
  // and with it all of them would need more than `bytes_max`.
  [[nodiscard]] StatementRef intern(ByteSpan content, const ParseContext& context,
                                    size_t bytes_max);

  [[nodiscard]] size_t count() const noexcept { return statements_.size(); }
  // Of all statements together.
  [[nodiscard]] size_t bytes() const noexcept { return bytes_; }

 private:
  friend class StatementRef;
  struct Content {
    std::string_view content;
    const ParseContext* context;
    friend bool operator==(const Content& a, const Content& b) noexcept {
      return a.content == b.content && *a.context == *b.context;
    }
  };
  // The same text is rarely used in many contexts.
  struct Hash {
    HashKey key;
    size_t operator()(const Content& one) const noexcept {
      return keyed_hash(key, as_bytes(one.content)) ^ (*one.context)[0];
    }
  };
  void forget(const Statement& statement) noexcept;

  std::unordered_map<Content, std::unique_ptr<Statement>, Hash> statements_;
  size_t bytes_ = 0;
};

}  // namespace helios
