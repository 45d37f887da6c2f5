// softplus(v) = log(1 + exp(v)) with a small relative error everywhere: WGSL's log near 1 is only good to 2^-21, which
// would leave three digits of a step size of 0.001. log(1 + u) = 2 atanh(u / (2 + u)), by its series: u is at most 1.
fn softplus(v: f32) -> f32 {
  let u = exp(-abs(v));
  let z = u / (2.0 + u);
  let s = z * z;
  let series = 1.0 + s * (1.0 / 3.0 + s * (0.2 + s * (1.0 / 7.0 + s * (1.0 / 9.0 + s * (1.0 / 11.0 + s / 13.0)))));
  return max(v, 0.0) + 2.0 * z * series;
}

// The slope of softplus.
fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-v)); }
