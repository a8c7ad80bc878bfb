import { useCallback, useEffect, useState } from 'react'

export default function App() {
  const [answer, setAnswer] = useState(null)
  const [problem, setProblem] = useState(null)
  const [asking, setAsking] = useState(false)

  const ask = useCallback(async () => {
    setAsking(true)
    try {
      const response = await fetch('/api/hello')
      if (!response.ok) throw new Error(`the back end answered ${response.status}`)
      setAnswer(await response.json())
      setProblem(null)
    } catch (error) {
      setProblem(error.message)
    } finally {
      setAsking(false)
    }
  }, [])

  useEffect(() => {
    ask()
  }, [ask])

  return (
    <main>
      <p className="eyebrow">purple8-sandbox</p>
      <h1>Two containers, one page</h1>
      <p className="lead">
        This page is served by Vite in a <b>node20</b> container. What stands below was fetched from FastAPI in a{' '}
        <b>python312</b> container beside it.
      </p>

      <section aria-live="polite">
        {answer && (
          <>
            <p className="message">{answer.message}</p>
            <dl>
              <dt>Python</dt>
              <dd>{answer.python}</dd>
              <dt>Host</dt>
              <dd>{answer.host}</dd>
              <dt>Asked</dt>
              <dd>
                {answer.asked} {answer.asked === 1 ? 'time' : 'times'}
              </dd>
            </dl>
          </>
        )}
        {problem && <p className="problem">No answer: {problem}</p>}
        {!answer && !problem && <p>Asking the back end…</p>}
      </section>

      <button type="button" onClick={ask} disabled={asking}>
        Ask again
      </button>
      <p className="hint">
        Change <code>frontend/src/App.jsx</code> or <code>backend/main.py</code> in the sandbox: both reload by
        themselves.
      </p>
    </main>
  )
}
