import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

// A launch tells every role where the others are; at home the back end listens on this machine.
const backend = process.env.BACKEND_URL ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [react()],
  server: {
    proxy: { '/api': { target: backend, changeOrigin: true } },
  },
})
