locals {
  apis = [
    "artifactregistry",
    "cloudbuild",
    "cloudkms",
    "cloudresourcemanager",
    "cloudscheduler",
    "firebase",
    "firebasehosting",
    "firebaserules",
    "firestore",
    "iam",
    "identitytoolkit",
    "monitoring",
    "pubsub",
    "run",
    "secretmanager",
    "sqladmin",
  ]
}

resource "google_project_service" "api" {
  for_each = toset(local.apis)

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # others may use it
}

data "google_project" "this" {
  project_id = var.project
}

locals {
  number = data.google_project.this.number
}
