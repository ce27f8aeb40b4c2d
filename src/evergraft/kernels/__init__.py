"""Fast operators beside the sparse products, useful in any model, and the native library behind them."""
