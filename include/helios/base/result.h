// A value or the reason why there is none.
//
// For functions whose failure is an ordinary outcome (parsers, address parsing, start-up steps).
// The error is a sentence for a person, made where the failure is understood. Not for the path of a
// query.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "helios/base/assert.h"

namespace helios {

struct Error {
  std::string text;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: converts on purpose.
  Result(Error error)
      : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: converts on purpose.

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  [[nodiscard]] T& value() & noexcept {
    ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] const T& value() const& noexcept {
    ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  [[nodiscard]] T&& value() && noexcept {
    ASSERT(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  [[nodiscard]] const std::string& error() const noexcept {
    ASSERT(!ok());
    return std::get_if<1>(&state_)->text;
  }

 private:
  std::variant<T, Error> state_;
};

}  // namespace helios
