#pragma once
// A stage of a pipeline: items go through a function on several threads and come out in the order in which they went in.
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace sheaf {

// One thread pushes and pops; `work` runs on the workers' threads, several at once. What it throws is thrown by the pop() of that item.
// The owner bounds what is in flight: it pushes while size() is small enough.
template <class In, class Out>
class OrderedWorkers {
 public:
  OrderedWorkers(std::size_t num_threads, std::function<Out(In)> work) : work_(std::move(work)) {
    for (std::size_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;
  // Waits for what is being worked on; the rest is dropped.
  ~OrderedWorkers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::size_t size() const { return jobs_.size(); }    // pushed and not popped
  std::size_t num_threads() const { return threads_.size(); }

  void push(In item) {
    auto job = std::make_shared<Job>();
    job->in.emplace(std::move(item));
    jobs_.push_back(job);
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(job));
    }
    changed_.notify_all();
  }

  // Of the oldest item; waits for it.
  Out pop() {
    const std::shared_ptr<Job> job = std::move(jobs_.front());
    jobs_.pop_front();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return job->out || job->error; });
    if (job->error) std::rethrow_exception(job->error);
    return std::move(*job->out);
  }

 private:
  struct Job {
    std::optional<In> in;
    std::optional<Out> out;
    std::exception_ptr error;
  };
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      const std::shared_ptr<Job> job = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      std::optional<Out> out;
      std::exception_ptr error;
      try {
        out.emplace(work_(std::move(*job->in)));
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      job->in.reset();
      job->out = std::move(out);
      job->error = error;
      changed_.notify_all();
    }
  }

  std::function<Out(In)> work_;
  std::deque<std::shared_ptr<Job>> jobs_;    // of the owner's thread
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> waiting_;    // for a worker
  bool stopping_ = false;
  std::vector<std::thread> threads_;    // last: they use all of the above
};

}    // namespace sheaf
