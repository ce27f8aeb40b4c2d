// Which of the libraries this machine can run, asked of the processor itself.
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace evergraft {

#if defined(__x86_64__)
namespace {

// Whether the processor has AMX for bf16 and the kernel lets this process use its registers, which a process has to ask
// for (Linux, Documentation/arch/x86/xstate.rst).
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24;  // CPUID, leaf 7, EDX
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE)) return false;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

}  // namespace
#endif

// The fastest tier: 0 portable, 1 avx2, 2 avx512, 3 avx512bf16, 4 amx. The order is that of `Tier` in vector.hpp and of
// `TIERS` in Python (src/evergraft/kernels/native.py).
extern "C" __attribute__((visibility("default"))) int evergraft_best_tier() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return 1;
  if (!__builtin_cpu_supports("avx512bf16")) return 2;
  return has_amx() ? 4 : 3;
#else
  return 0;
#endif
}

}  // namespace evergraft
