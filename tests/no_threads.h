// NoThreads: a system that has no more threads, for the tests of those who start some.
#ifndef FERRY_TESTS_NO_THREADS_H_
#define FERRY_TESTS_NO_THREADS_H_

#include <pthread.h>

#include <cstddef>

namespace ferry {

// While it lives, every new thread of the process is to have a stack larger than the address space,
// so that starting it fails.
class NoThreads {
 public:
  NoThreads() {
    pthread_getattr_default_np(&usual_);
    pthread_attr_t huge;
    pthread_attr_init(&huge);
    pthread_attr_setstacksize(&huge, size_t{1} << 60);
    pthread_setattr_default_np(&huge);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    pthread_setattr_default_np(&usual_);
    pthread_attr_destroy(&usual_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t usual_;
};

}  // namespace ferry

#endif  // FERRY_TESTS_NO_THREADS_H_
