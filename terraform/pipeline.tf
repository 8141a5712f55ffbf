# Who runs cloudbuild.yaml. It may change what a release changes, the functions and the job, and read all the rest: a
# commit that changes anything else is applied by a person first, or its release stops with "permission denied".
resource "google_service_account" "pipeline" {
  account_id   = "recado-pipeline"
  display_name = "Recado: builds and releases"
}

resource "google_project_iam_member" "pipeline" {
  for_each = toset([
    "roles/firebasehosting.admin",
    "roles/firebaserules.admin",
    "roles/iam.securityReviewer", # Terraform compares policies with what they should be
    "roles/logging.logWriter",
    "roles/run.admin", # not less: whether a service is public is a policy
    "roles/serviceusage.serviceUsageConsumer",
    "roles/storage.bucketViewer",
    "roles/viewer",
  ])

  project = var.project
  role    = each.key
  member  = google_service_account.pipeline.member
}

# It deploys services and a job that run as these.
resource "google_service_account_iam_member" "pipeline_deploys" {
  for_each = merge(
    { for name, function in module.function : name => function.account },
    { migrate = google_service_account.migrate.name }
  )

  service_account_id = each.value
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.pipeline.member
}

resource "google_storage_bucket_iam_member" "pipeline_state" {
  bucket = "${var.project}-recado-state" # made by hand before everything else
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_cloudbuild_trigger" "release" {
  count = var.repository == "" ? 0 : 1

  name            = "release"
  description     = "Releases what is pushed to main"
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.pipeline.id

  repository_event_config {
    repository = var.repository
    push {
      branch = "^main$"
    }
  }

  depends_on = [google_project_service.api]
}
