// Statements that servers of a pool have accepted: a Parse of one of them needs no server to be
// answered, as far as anybody can know beforehand.
//
// A client that prepares outside of a transaction gets its answer without a backend. (Where all
// backends are in use it would have to wait for one, and a program that prepares in a blocking call
// while it holds transactions on other connections would wait for itself.) What a server says to a
// statement when it is used counts: then the error comes with the Bind.
//
// A table of fixed size in which the newer of two that fall on one place stays; its memory is there
// from the first statement on. One slice's data, used by its core only.
#pragma once

#include <array>
#include <memory>

#include "helios/pool/statement.h"

namespace helios {

class AcceptedStatements {
 public:
  static constexpr size_t size = 512;  // 8 KiB.

  void add(const StatementKey& key) {
    if (keys_ == nullptr) keys_ = std::make_unique<Keys>();
    at(key) = key;
  }
  void remove(const StatementKey& key) noexcept {
    if (contains(key)) at(key) = {};
  }
  [[nodiscard]] bool contains(const StatementKey& key) const noexcept {
    return keys_ != nullptr && at(key) == key;
  }

 private:
  using Keys = std::array<StatementKey, size>;
  [[nodiscard]] StatementKey& at(const StatementKey& key) const noexcept {
    return (*keys_)[key.low % size];
  }

  std::unique_ptr<Keys> keys_;
};

}  // namespace helios
