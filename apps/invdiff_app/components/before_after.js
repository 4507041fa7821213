// Two pictures over each other, parted by a line that the range input (and so the keyboard) or the pointer moves.
export default function ({ data, parentElement }) {
  const find = (what) => parentElement.querySelector(what)
  const frame = find(".frame"), before = find(".before"), after = find(".after"), range = find("input")
  if (before.src !== data.before) before.src = data.before
  if (after.src !== data.after) after.src = data.after
  before.alt = data.before_label
  after.alt = data.after_label
  find(".left").textContent = data.before_label
  find(".right").textContent = data.after_label
  range.setAttribute("aria-label", data.label)
  const place = () => {
    before.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`
    find(".line").style.left = `${range.value}%`
  }
  const follow = (event) => {
    if (event.type === "pointermove" && !event.buttons) return
    const box = frame.getBoundingClientRect()
    range.value = Math.round(100 * (event.clientX - box.left) / box.width)
    place()
  }
  range.oninput = place
  frame.onpointerdown = frame.onpointermove = follow
  place()
}
