// Whether the value of a step's first input ends with the step: nobody looks at it later, so that a
// kernel that has the only reference to it may change it in place. For values that aren't plain
// memory (lists of tensors); others go through KernelContext::AllocateOutput.
//
//   if (EndingInput::Now() && input.buffer()->refs() == 1) …
#ifndef FERRY_RUNTIME_OP_ENDING_INPUT_H_
#define FERRY_RUNTIME_OP_ENDING_INPUT_H_

namespace ferry {

// Set by the executor around Compute, for the calling thread.
class EndingInput {
 public:
  explicit EndingInput(bool ends) { now_ = ends; }
  ~EndingInput() { now_ = false; }
  EndingInput(const EndingInput&) = delete;
  EndingInput& operator=(const EndingInput&) = delete;
  static bool Now() { return now_; }

 private:
  inline static thread_local bool now_ = false;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_ENDING_INPUT_H_
