// Which of the libraries built from products.cpp this machine can run, asked of the processor itself.

// The fastest tier: 0 portable, 1 avx2, 2 avx512, 3 avx512bf16. The order is that of `TIERS` in library.py.
extern "C" __attribute__((visibility("default"))) int evergraft_best_tier() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512cd") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return 1;
  return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
#else
  return 0;
#endif
}
