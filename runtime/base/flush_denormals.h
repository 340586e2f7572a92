// FlushDenormals: arithmetic without subnormal numbers, as TensorFlow's CPU kernels have it.
//
// Numbers below the smallest normal one (1.2e-38 for float) are read and written as 0. Processors
// take a hundred times as long over them, and training runs into them: the moments of a weight that
// no longer gets a gradient decay through that range.
#ifndef FERRY_RUNTIME_BASE_FLUSH_DENORMALS_H_
#define FERRY_RUNTIME_BASE_FLUSH_DENORMALS_H_

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace ferry {

// Of the calling thread, as long as the object lives. Costs a few nanoseconds.
class FlushDenormals {
 public:
  FlushDenormals() : before_(Get()) {
    if ((before_ & kBits) != kBits) Set(before_ | kBits);
  }
  ~FlushDenormals() {
    if ((before_ & kBits) != kBits) Set(before_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE__)
  using Word = uint32_t;
  static constexpr Word kBits = 0x8040;  // MXCSR: flush results to zero, take operands as zero.
  static Word Get() { return _mm_getcsr(); }
  static void Set(Word w) { _mm_setcsr(w); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kBits = Word{1} << 24;  // FPCR: FZ, for both.
  static Word Get() {
    Word w;
    asm volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void Set(Word w) { asm volatile("msr fpcr, %0" : : "r"(w)); }
#else
  using Word = uint32_t;
  static constexpr Word kBits = 0;
  static Word Get() { return 0; }
  static void Set(Word) {}
#endif
  const Word before_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_BASE_FLUSH_DENORMALS_H_
