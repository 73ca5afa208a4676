#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <thread>

#include "base/error.h"
#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using CudaScratch = Gpu;

const auto kBytes = at::TensorOptions().dtype(at::kByte).device(kGpu);

TEST_F(CudaScratch, rows_allocate_in_their_slot) {
  const at::Tensor slot = at::zeros({(1 << 20) + 256}, kBytes);
  auto* const base = static_cast<char*>(slot.data_ptr()) + 256;    // not at the start of a block: see Executor
  const std::int64_t stray = num_stray_allocations(DeviceKind::cuda);
  {
    const ScratchScope scope(DeviceKind::cuda, base, 1 << 20);
    {
      const at::Tensor a = at::empty({1000}, kBytes), b = at::empty({1000}, kBytes);
      EXPECT_EQ(a.data_ptr(), base);
      EXPECT_EQ(static_cast<char*>(b.data_ptr()) - base, 1024);
      EXPECT_FALSE(scope.empty());
    }
    EXPECT_TRUE(scope.empty());
    EXPECT_EQ(scope.peak(), 2048);
    EXPECT_THROW(at::empty({2 << 20}, kBytes), InternalError);
  }
  EXPECT_EQ(num_stray_allocations(DeviceKind::cuda), stray);
  at::empty({10}, kBytes);
  EXPECT_EQ(num_stray_allocations(DeviceKind::cuda), stray + 1);
}

TEST_F(CudaScratch, measuring_gives_real_memory_and_the_peak) {
  const ScratchScope scope(DeviceKind::cuda, nullptr, 0);
  {
    const at::Tensor a = at::zeros({1000}, kBytes), b = a.clone();
    EXPECT_EQ(b.cpu().sum().item<std::int64_t>(), 0);
  }
  EXPECT_EQ(scope.peak(), 2048);
  EXPECT_TRUE(scope.empty());
}

TEST_F(CudaScratch, pooled_memory_comes_again_on_its_stream_only) {
  const auto address = [](std::int64_t bytes) { return at::empty({bytes}, kBytes).data_ptr(); };
  const PooledAllocations pooled;
  void* const first = address(100 << 10);
  const std::int64_t stray = num_stray_allocations(DeviceKind::cuda);
  EXPECT_EQ(address(97 << 10), first);
  EXPECT_EQ(num_stray_allocations(DeviceKind::cuda), stray);
  EXPECT_NE(address(10 << 10), first);    // far smaller: another block
  {
    const c10::cuda::CUDAStreamGuard other(c10::cuda::getStreamFromPool());
    EXPECT_NE(address(100 << 10), first);
  }
  const at::Tensor held = at::empty({100 << 10}, kBytes);
  EXPECT_EQ(held.data_ptr(), first);
  EXPECT_NE(address(100 << 10), first);
  EXPECT_GE(pooled_bytes(0), 3 * (100 << 10));
}

TEST_F(CudaScratch, workspaces_of_cublas_are_taken_outside) {
  std::thread([] {    // a fresh thread has a fresh cuBLAS handle
    const c10::InferenceMode no_tape;
    take_lasting_workspaces(DeviceKind::cuda, 0);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor a = at::zeros({256, 256}, at::TensorOptions().dtype(dtype).device(kGpu));
      at::Tensor c = at::zeros({256, 256}, a.options());
      const ScratchScope scope(DeviceKind::cuda, nullptr, 0);
      at::mm_out(c, a, a);
      EXPECT_EQ(scope.peak(), 0);
      EXPECT_TRUE(scope.empty());
    }
  })
      .join();
}

TEST_F(CudaScratch, threads_do_not_mix_their_slots) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      const c10::InferenceMode no_tape;
      const at::Tensor slot = at::zeros({(1 << 16) + 256}, kBytes);
      for (int i = 0; i < 200; ++i) {
        const ScratchScope scope(DeviceKind::cuda, static_cast<char*>(slot.data_ptr()) + 256, 1 << 16);
        const at::Tensor a = at::empty({100 + t}, kBytes);
        ASSERT_EQ(a.data_ptr(), static_cast<char*>(slot.data_ptr()) + 256);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}    // namespace
