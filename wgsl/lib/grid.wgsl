// A dispatch has at most 65,535 workgroups a dimension, so long one-dimensional work is folded into rows of
// workgroups. These give back the flat index; the host's `grid()` makes the fold.
fn flat_workgroup(workgroup: vec3u, workgroups: vec3u) -> u32 {
  return workgroup.y * workgroups.x + workgroup.x;
}
