// Sine and cosine to the last bits of f32. WGSL promises 2^-11 and only from -pi to pi, and SwiftShader keeps to that.
// The angle is reduced by multiples of pi / 2 in three steps whose products with n are exact to 2^16; then Cephes' series.
import package::lib::part::wide;

struct Turn { sine: wide, cosine: wide }

fn turn_of(angle: wide) -> Turn {
  let n = round(angle * 0.6366197723675814);
  let r = ((angle - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789954891882e-8;
  let z = r * r;
  let s = r + r * z * ((z * -1.9515295891e-4 + 8.3321608736e-3) * z - 1.6666654611e-1);
  let c = 1.0 - 0.5 * z + z * z * ((z * 2.443315711809948e-5 - 1.388731625493765e-3) * z + 4.166664568298827e-2);
  // Which of both, and its sign, by the quarter of the circle.
  let odd = n - 2.0 * floor(0.5 * n);
  let half = floor(0.5 * (n - 4.0 * floor(0.25 * n))); // 0 or 1
  let next = odd + half - 2.0 * odd * half;
  return Turn((1.0 - 2.0 * half) * (s * (1.0 - odd) + c * odd), (1.0 - 2.0 * next) * (c * (1.0 - odd) + s * odd));
}
