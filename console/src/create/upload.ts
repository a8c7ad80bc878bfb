/** Uploads an archive as a project, with progress, which fetch does not report. */
import { Problem, type Schemas, Unreachable } from "../api/client";

export type Project = Schemas["ProjectView"];

/** The content type of an archive by its name; null if it is no archive that the service takes. */
export function archiveType(name: string): string | null {
  if (/\.zip$/i.test(name)) return "application/zip";
  if (/\.(tgz|tar\.gz)$/i.test(name)) return "application/gzip";
  return null;
}

/** Store an archive under a project id. `onProgress` gets the part that was sent. Throws Problem or Unreachable. */
export function upload(
  id: string,
  archive: Blob,
  type: string,
  onProgress: (part: number) => void,
): Promise<Project> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/v1/projects/${encodeURIComponent(id)}`);
    request.setRequestHeader("Content-Type", type);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => onProgress(total > 0 ? loaded / total : 0);
    request.onerror = () => reject(new Unreachable());
    request.onload = () => {
      if (request.status < 300) resolve(request.response as Project);
      else reject(Problem.from(request.status, request.response));
    };
    request.send(archive);
  });
}
