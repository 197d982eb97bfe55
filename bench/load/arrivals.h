// When transactions of an open loop are due: independent arrivals (a Poisson process) at a rate.
//
// The schedule does not wait for anybody: what is due while every client is busy is taken later,
// with the moment at which it was due. One core's data.
#pragma once

#include <cstdint>

#include "helios/base/clock.h"
#include "load/random_numbers.h"

namespace helios::bench {

class Arrivals {
 public:
  // `rate`: per second, above 0.
  Arrivals(double rate, Nanoseconds from, RandomNumbers& random) noexcept
      : mean_(1e9 / rate), next_(static_cast<double>(from)), random_(random) {
    advance();
  }

  [[nodiscard]] Nanoseconds next() const noexcept { return static_cast<Nanoseconds>(next_); }
  [[nodiscard]] bool is_due(Nanoseconds now) const noexcept { return next() <= now; }
  // The moment of the arrival that is next; goes on to the one behind it.
  Nanoseconds take() noexcept {
    const Nanoseconds due = next();
    advance();
    return due;
  }

 private:
  void advance() noexcept { next_ += random_.exponential(mean_); }

  double mean_;
  // Whole nanoseconds would add up an error at high rates; a double of 2^53 ns is good for months.
  double next_;
  RandomNumbers& random_;
};

}  // namespace helios::bench
