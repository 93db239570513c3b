{
  const seconds = Number(document.documentElement.dataset.live);
  if (seconds > 0) {
    setInterval(() => {
      const busy = document.activeElement !== null && document.activeElement !== document.body;
      if (document.visibilityState === "visible" && !busy) location.reload();
    }, seconds * 1000);
  }
}
