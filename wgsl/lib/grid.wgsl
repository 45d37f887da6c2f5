// A dispatch has at most 65,535 workgroups a dimension, so long one-dimensional work is folded into rows of
// workgroups by the host's `grid()`. This gives back the flat index, which may lie past the end: check it.
fn flat_workgroup(group: vec3u, groups: vec3u) -> u32 {
  return group.y * groups.x + group.x;
}
