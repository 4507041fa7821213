// Pictures side by side that zoom and move together: buttons, the keys + - 0 and arrows, a double click, or dragging.
export default function ({ data, parentElement }) {
  const find = (what) => parentElement.querySelector(what)
  const grid = find(".grid")
  const view = (grid.view ??= { zoom: 1, x: 0, y: 0 })          // x, y: of the window's corner, in shares of the picture
  grid.style.setProperty("--least", `${data.least}px`)
  find(".tools").setAttribute("aria-label", data.label)
  find(".hint").textContent = data.hint
  find(".whole").textContent = data.whole
  find(".in").setAttribute("aria-label", data.zoom_in)
  find(".out").setAttribute("aria-label", data.zoom_out)

  const place = () => {
    view.zoom = Math.min(Math.max(view.zoom, 1), 16)
    for (const axis of ["x", "y"]) view[axis] = Math.min(Math.max(view[axis], 0), 1 - 1 / view.zoom)
    grid.querySelectorAll(".window").forEach((window) => {
      window.classList.toggle("zoomed", view.zoom > 1)
      window.firstChild.style.transform = `scale(${view.zoom}) translate(${-100 * view.x}%, ${-100 * view.y}%)`
    })
  }
  const zoom = (factor, at = [0.5, 0.5]) => {
    const next = Math.min(Math.max(view.zoom * factor, 1), 16)
    view.x += at[0] * (1 / view.zoom - 1 / next)
    view.y += at[1] * (1 / view.zoom - 1 / next)
    view.zoom = next
    place()
  }
  const whole = () => { Object.assign(view, { zoom: 1, x: 0, y: 0 }); place() }
  find(".in").onclick = () => zoom(1.5)
  find(".out").onclick = () => zoom(1 / 1.5)
  find(".whole").onclick = whole

  const listen = (window) => {
    let from = null
    window.ondblclick = (event) => {
      const box = window.getBoundingClientRect()
      zoom(2, [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height])
    }
    window.onpointerdown = (event) => {
      if (view.zoom === 1) return
      from = [event.clientX, event.clientY]
      window.setPointerCapture(event.pointerId)
    }
    window.onpointermove = (event) => {
      if (!from) return
      const box = window.getBoundingClientRect()
      view.x -= (event.clientX - from[0]) / box.width / view.zoom
      view.y -= (event.clientY - from[1]) / box.height / view.zoom
      from = [event.clientX, event.clientY]
      place()
    }
    window.onpointerup = window.onpointercancel = () => { from = null }
    window.onkeydown = (event) => {
      const move = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1] }[event.key]
      if (move && view.zoom > 1) view[move[0]] += move[1] * 0.1 / view.zoom
      else if (event.key === "+") return zoom(1.5)
      else if (event.key === "-") return zoom(1 / 1.5)
      else if (event.key === "0") return whole()
      else return
      event.preventDefault()
      place()
    }
  }
  while (grid.children.length > data.panels.length) grid.lastChild.remove()
  data.panels.forEach((panel, i) => {
    if (!grid.children[i]) {
      const figure = document.createElement("figure")
      figure.innerHTML = '<div class="window" tabindex="0" role="img"><img alt=""></div><figcaption></figcaption>'
      grid.append(figure)
      listen(figure.firstChild)
    }
    const [window, caption] = grid.children[i].children
    if (window.firstChild.src !== panel.src) window.firstChild.src = panel.src
    window.setAttribute("aria-label", `${panel.title}. ${panel.caption}`)
    caption.textContent = panel.title
    const more = document.createElement("span")
    more.textContent = panel.caption
    caption.append(more)
  })
  place()
}
